"""Whether a captured graph gives what the model itself gives."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.utils._pytree as pytree
from torch import Tensor, nn

from ..errors import CaptureError
from ..graph.graph import Graph
from .control_flow import unrolled
from .copies import copied
from .outputs import known_leaf
from .reach import Reach
from .scripted import buffers_kept, is_scripted
from .untouched import untouched


@contextmanager
def forked(model: nn.Module) -> Iterator[None]:
    """What is drawn within, of torch's, NumPy's and Python's random numbers, leaves theirs where they were."""
    ours, theirs = random.getstate(), np.random.get_state()  # noqa: NPY002 (what models draw from)
    with torch.random.fork_rng(_gpus(model)):
        try:
            yield
        finally:
            random.setstate(ours)
            np.random.set_state(theirs)  # noqa: NPY002


@torch.no_grad()
def outputs_of(
    model: nn.Module,
    reach: Reach,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    written: Sequence[str] = (),
    *,
    single: bool = False,
    known: bool = True,
) -> Any:
    """What the model returns, run on copies of its arguments and buffers, and of the parameters that it writes to.

    Args:
        model: the model.
        reach: what it can see.
        args, kwargs: the inputs.
        written: names of parameters that the model writes to.
        single: whether what is in double precision is given to it in single precision.
        known: leave out what torch.export does not know.
    """
    args, kwargs = copied(args, kwargs)
    if is_scripted(model):
        with buffers_kept(model):
            return model(*args, **kwargs)
    parameters = dict(model.named_parameters())
    tensors = {name: b.clone() for name, b in model.named_buffers()} | {n: parameters[n].clone() for n in written}
    if single:
        tensors, args, kwargs = pytree.tree_map(_single, (parameters | tensors, args, kwargs))
    with untouched(reach), unrolled(), torch.compiler.set_stance("force_eager"):
        output = torch.func.functional_call(model, tensors, args, kwargs)
    return pytree.tree_map(known_leaf, output) if known else output


def disagreement(
    model: nn.Module,
    reach: Reach,
    graph: Graph,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    outputs: Sequence[Any],
) -> str | None:
    """Where a graph gave something else than the model gives, in words; None if nowhere.

    Args:
        model: the model, which runs once, and is left as it is.
        reach: what it can see.
        graph: that was captured of it.
        args, kwargs: the inputs.
        outputs: leaves of the output of the graph.

    Raises:
        CaptureError: if the model gives another output whenever it runs.
    """
    skipped = [o in graph.random for o, x in zip(graph.outputs, outputs, strict=True) if isinstance(x, Tensor)]
    with forked(model):
        before = _dice(model)
        try:
            theirs, exact = outputs_of(model, reach, args, kwargs, graph.written), graph.exact
        except RuntimeError as error:  # a kernel that knows no double precision (Mixtral's grouped products)
            if not any(p.dtype == torch.float64 for p in model.parameters()):
                raise
            try:
                theirs, exact = outputs_of(model, reach, args, kwargs, graph.written, single=True), False
            except RuntimeError:
                raise error from None
        is_drawn = _dice(model) != before
        found = difference(theirs, outputs, exact=exact, skipped=skipped)
        if found is None and not is_drawn:
            return None
        for _ in range(RUNS):  # with other random numbers
            again = pytree.tree_leaves(outputs_of(model, reach, args, kwargs, graph.written))
            if difference(theirs, again, exact=graph.exact, skipped=skipped) is not None:
                raise CaptureError(
                    f"{type(model).__name__} is random: run twice on the same inputs, it gives two outputs, so that "
                    "there is none to explain. Call model.eval(), or make what is drawn an input of the model."
                )
        if found is None:
            return None
        moved_args, moved_kwargs = pytree.tree_map(shaken, (args, kwargs))
        apart = outputs_of(model, reach, moved_args, moved_kwargs, graph.written)
    return difference(theirs, outputs, exact=graph.exact, skipped=skipped, apart=apart)


def _single(x: Any) -> Any:
    return x.float() if isinstance(x, Tensor) and x.dtype == torch.float64 else x


RUNS = 3
"""So often does a model run again that draws random numbers or disagrees with its graph."""


def _dice(model: nn.Module) -> Any:
    """What decides about the next random numbers."""
    torches = [torch.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in _gpus(model))]
    _, key, position, *_ = np.random.get_state()  # noqa: NPY002
    return [t.numpy().tobytes() for t in torches], np.asarray(key).tobytes(), position, random.getstate()


def _gpus(model: nn.Module) -> set[torch.device]:
    return {p.device for p in model.parameters() if p.device.type == "cuda"}


def difference(
    theirs: Any, ours: Sequence[Any], *, exact: bool = True, skipped: Sequence[bool] = (), apart: Any = None
) -> str | None:
    """Where two outputs differ beyond rounding, and by how much, in words; None if nowhere.

    Args:
        theirs: output of the model.
        ours: leaves of the output of the graph.
        exact: False for a model in double precision that rounds to single precision on its way.
        skipped: for each tensor whether it is random.
        apart: output of the model for inputs that differ in their last digits: what this changes is rounding.
    """
    named = [(pytree.keystr(path), x) for path, x in pytree.tree_flatten_with_path(theirs)[0] if isinstance(x, Tensor)]
    found = [x for x in ours if isinstance(x, Tensor)]
    if len(named) != len(found):
        return f"it returns {len(named)} tensors, not {len(found)}"
    moved = [x for x in pytree.tree_leaves(apart) if isinstance(x, Tensor)] or named
    floats = any(_is_inexact(x) for _, x in named)
    for (name, x), y, z, skip in zip(named, found, moved, skipped or [False] * len(named), strict=True):
        if skip:
            continue
        if x.shape != y.shape:
            return f"its output{name} has shape {tuple(x.shape)}, not {tuple(y.shape)}"
        if _is_inexact(x) and not _close(x, y, exact, z if isinstance(z, Tensor) else None):
            off, size = (x - y.to(x.dtype)).abs().max().item(), x.abs().max().item()
            return f"its output{name} differs by {off:.3g}, where it is {size:.3g} at most"
        if not floats and not torch.equal(x, y):  # beside scores it may be a tie that rounding decides
            return f"its output{name} differs at {int((x != y).sum())} of {x.numel()} places"
    return None


def shaken(x: Any) -> Any:
    """A tensor with other last digits."""
    if not isinstance(x, Tensor) or not _is_inexact(x):
        return x
    return x * (1 + 4 * torch.finfo(x.dtype).eps * torch.randn_like(x))


def _is_inexact(x: Tensor) -> bool:
    return x.dtype.is_floating_point or x.dtype.is_complex


def _close(x: Tensor, y: Tensor, exact: bool, apart: Tensor | None) -> bool:
    """Whether two tensors are one up to rounding: relatively, and for small values as large ones are rounded."""
    epsilon = torch.finfo(x.dtype).eps
    single = torch.finfo(torch.float32).eps
    tolerance = max(epsilon, single) ** 0.5 if epsilon >= single or not exact else 1e-6
    finite = torch.isfinite(x)
    scale = float(x[finite].abs().max()) if bool(finite.any()) else 0.0
    rounding = 0.0 if apart is None else 1000 * float((apart - x)[finite].abs().max())
    absolute = max(tolerance * scale, rounding)
    if not exact:  # what overflowed in single precision need not in double
        x, y = x[finite], y[finite]
    return bool(torch.allclose(x, y.to(x.dtype), rtol=tolerance, atol=absolute, equal_nan=True))
