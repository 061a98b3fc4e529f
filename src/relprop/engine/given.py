"""Inputs as the model is called with them, and results in the structure in which they came."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch.utils._pytree as pytree

from ..capture.export import batch_size
from .inputs import call_of, like_inputs


@dataclass(frozen=True)
class Given:
    """The inputs of one call: their leaves, and how the model is called with them."""

    inputs: Any
    """As the user gave them."""
    leaves: Sequence[Any]
    spec: pytree.TreeSpec

    @classmethod
    def of(cls, inputs: Any) -> Given:
        """Inputs as a user gives them: a tensor, a tuple or a dict.

        Raises:
            InputError: if they are nothing that a model can be called with.
        """
        leaves, spec = pytree.tree_flatten(call_of(inputs))
        return cls(inputs, leaves, spec)

    def call(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and keyword arguments of the model."""
        args, kwargs = pytree.tree_unflatten(self.leaves, self.spec)
        return args, kwargs

    def holding(self, leaves: Sequence[Any]) -> Given:
        """The same call with other leaves, such as those of some of the samples."""
        return replace(self, leaves=leaves)

    def like(self, found: Sequence[Any]) -> Any:
        """A value for every leaf, in the structure in which the inputs came."""
        args, kwargs = pytree.tree_unflatten(found, self.spec)
        return like_inputs(self.inputs, args, kwargs)

    @property
    def samples(self) -> int | None:
        """Length of the first dimension of the first tensor."""
        return batch_size(self.leaves)
