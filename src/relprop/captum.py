"""captum's interface: where captum's ``LRP``, or any other of its attributions stands, this one can stand."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Literal, TypeVar, overload

import numpy as np
import torch
from torch import Tensor, nn

from .composites import Choice
from .engine.session import Bias
from .errors import InputError, TargetError
from .lrp import LRP as _LRP

Target = int | tuple[int, ...] | Tensor | list[int] | list[tuple[int, ...]] | Callable[[Any], Tensor] | None
"""What captum takes, and the functions of :mod:`relprop.targets`."""

Method = TypeVar("Method", bound=Callable[..., Any])


def _wrapped(method: Method) -> Method:
    """A method as captum's own are: NoiseTunnel calls ``attribute.__wrapped__``, what is inside of captum's log."""

    @wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        return method(*args, **kwargs)

    return call  # type: ignore[return-value]


class LRP:
    """LRP with the interface of ``captum.attr.LRP``; captum itself need not be installed.

    What it returns goes to ``captum.metrics`` and captum's pictures, and it may stand inside of ``NoiseTunnel``. No
    module needs a rule of its own as captum's LRP asks for, and the model is never changed.

    Args:
        model: an ``nn.Module``.
        composite: which rule for which operation, as of :class:`relprop.LRP`.
        bias: what happens to the share of biases, as of :class:`relprop.LRP`.

    Raises:
        CaptureError, SelectionError, ValueError: as :class:`relprop.LRP`.
    """

    multiplies_by_inputs = True

    def __init__(self, model: nn.Module, composite: Choice = "auto", *, bias: Bias = "absorb"):
        self.model = self.forward_func = model
        self.lrp = _LRP(model, composite, bias=bias)
        """The same in relprop's own words."""

    @overload
    def attribute(
        self,
        inputs: Any,
        target: Target = None,
        additional_forward_args: Any = None,
        return_convergence_delta: Literal[False] = False,
        verbose: bool = False,
    ) -> Any: ...

    @overload
    def attribute(
        self,
        inputs: Any,
        target: Target = None,
        additional_forward_args: Any = None,
        *,
        return_convergence_delta: Literal[True],
        verbose: bool = False,
    ) -> tuple[Any, Tensor]: ...

    @_wrapped
    def attribute(
        self,
        inputs: Any,
        target: Target = None,
        additional_forward_args: Any = None,
        return_convergence_delta: bool = False,
        verbose: bool = False,
    ) -> Any:
        """Relevance of the inputs.

        Args:
            inputs: a tensor, or a tuple of tensors, samples first. Integers that index an embedding get one value each.
            target: the class of all samples (an int, or a tensor that holds one), one for each (a list, or a tensor
                [B]), for an output of more dimensions a tuple of indices or a list of such tuples, or a function of
                the output. None is the output itself if it is [B] or [B, 1], else, where captum stops, the predicted
                class.
            additional_forward_args: what the model takes besides the inputs, and what is not explained: one value, or
                a tuple of them.
            return_convergence_delta: also return what did not reach the inputs, the explained value minus the sum of
                relevance, [B].
            verbose: print the rule of every operation.

        Returns:
            Relevance in the structure and shape of the inputs, and the delta if it is asked for.

        Raises:
            InputError: if the inputs are no tensor or tuple of tensors.
            TargetError: if a list of targets is not as long as the batch, and as :meth:`relprop.LRP.attribute`.
            CaptureError, UnsupportedOperation: as :meth:`relprop.LRP.attribute`.
        """
        given = inputs if isinstance(inputs, tuple) else (inputs,)
        for i, x in enumerate(given):
            if not isinstance(x, Tensor):
                kind = type(x).__name__
                raise InputError(f"input {i} is no tensor but {kind}; give such as additional_forward_args.")
        rest = additional_forward_args
        rest = () if rest is None else rest if isinstance(rest, tuple) else (rest,)
        wrt, asked = range(len(given)), _target(target, len(given[0]) if given and given[0].ndim else 1)
        if verbose:
            print(self.lrp.plan((*given, *rest), wrt=wrt))
        if not return_convergence_delta:
            found = self.lrp.attribute((*given, *rest), asked, wrt=wrt)[: len(given)]
            return found if isinstance(inputs, tuple) else found[0]
        explanation = self.lrp.explain((*given, *rest), asked, wrt=wrt)
        found = explanation.relevance[: len(given)]
        delta = self.compute_convergence_delta(found, explanation.value)
        return (found if isinstance(inputs, tuple) else found[0]), delta

    def has_convergence_delta(self) -> bool:
        """That :meth:`compute_convergence_delta` is there."""
        return True

    def compute_convergence_delta(self, attributions: Tensor | tuple[Tensor, ...], output: Tensor) -> Tensor:
        """What did not reach the inputs, [B].

        Args:
            attributions: relevance of the inputs.
            output: the explained value of every sample, [B] or [B, 1].
        """
        parts = attributions if isinstance(attributions, tuple) else (attributions,)
        received = torch.stack([part.flatten(1).sum(1) for part in parts]).sum(0)
        return output.flatten() - received


def _target(target: Any, samples: int) -> Any:
    """A target in the words of relprop."""
    if isinstance(target, Tensor) and target.numel() == 1 and not target.dtype.is_floating_point:
        return int(target)
    if not isinstance(target, list):
        return target
    if len(target) != samples:
        raise TargetError(f"a list of targets holds one for each sample: there are {samples}, got {len(target)}.")
    if all(isinstance(t, tuple) for t in target):
        if len({len(t) for t in target}) != 1:
            raise TargetError(f"the tuples of indices must be of one length, got {target}.")
        return tuple(torch.tensor(column) for column in zip(*target, strict=True))
    if all(isinstance(t, (int, np.integer)) and not isinstance(t, bool) for t in target):
        return torch.tensor(target)
    raise TargetError(f"a list of targets holds ints, or tuples of ints, got {target}.")
