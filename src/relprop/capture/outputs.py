"""What a model returns, as far as it is tensors."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from functools import partial, update_wrapper
from typing import Any

import torch.utils._pytree as pytree
from torch import Tensor, nn

from ..errors import CaptureError


class Fields(dict[str, Any]):
    """The fields of a dataclass in the model's output, by name and as attributes."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the output has the fields {', '.join(self)}, but no {name!r}") from None


pytree.register_pytree_node(
    Fields,
    lambda output: (list(output.values()), list(output)),
    lambda values, names: Fields(zip(names, values, strict=True)),
    flatten_with_keys_fn=lambda output: ([(pytree.MappingKey(n), x) for n, x in output.items()], list(output)),
)


class TensorsOnly(nn.Module):
    """A model without those parts of its output that torch.export does not know (a cache of keys and values)."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.inner = model
        self.train(model.training)
        # torch.export can leave dimensions of named arguments open: so forward has the signature of the model's own
        self.forward = update_wrapper(partial(_tensors_of, model), model.forward)


def _tensors_of(model: nn.Module, *args: Any, **kwargs: Any) -> Any:
    return known_output(model, model(*args, **kwargs))


def known_output(model: nn.Module, output: Any) -> Any:
    """What of a model's output torch.export knows.

    Raises:
        CaptureError: if nothing of it is a tensor.
    """
    known = pytree.tree_map(known_leaf, output)
    if not any(isinstance(x, Tensor) for x in pytree.tree_leaves(known)):
        tensors = [
            name for name in ("logits", "mean", "rate", "loc") if isinstance(getattr(output, name, None), Tensor)
        ]
        example = f", such as output.{tensors[0]}" if tensors else ""
        raise CaptureError(
            f"{type(model).__name__} returns {type(output).__name__}, in which no tensor is to be seen. Wrap it in a "
            f"module that returns a tensor of it{example}, or a tuple, dict or dataclass of tensors."
        )
    return known


def is_known(output: Any) -> bool:
    """Whether torch.export knows all of a model's output."""
    return all(isinstance(x, KNOWN) for x in pytree.tree_leaves(output))


def known_leaf(x: Any) -> Any:
    """A leaf of the output as torch.export knows it; None for what it does not."""
    if is_dataclass(x) and not isinstance(x, type):
        return Fields((f.name, pytree.tree_map(known_leaf, getattr(x, f.name))) for f in fields(x))
    return x if isinstance(x, KNOWN) else None


KNOWN = (Tensor, int, float, str, type(None))
"""What an output of an exported program may be made of."""
