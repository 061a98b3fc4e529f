"""One straight-line program out of a plan: forward run and reverse sweep, traced together.

What a propagation does is known before it runs, so it can be written down. The trace is a graph of plain tensor
operations from inputs and a target to output and relevance: it needs neither the model's code nor relprop, and any
compiler for PyTorch takes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._decomp import core_aten_decompositions
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.graph import CodeGen
from torch.nn.attention import SDPBackend, sdpa_kernel

from .errors import CaptureError, reason_of
from .kernels import LINEAR
from .passes.packed import PACK
from .plan import Plan
from .propagate import Run, Weights, parameters_of
from .rules.layers import input_gradient

aten = torch.ops.aten

Propagation = Callable[[Run, Tensor | None], tuple[list[Any], list[Tensor | None]]]
"""From a forward run and the target to the leaves of the output, and relevance for every leaf of the inputs."""


@dataclass
class Program:
    """A traced propagation: ``graph(*weights, *inputs, target)`` with the tensors among the inputs.

    It returns the leaves of the output and then relevance for every leaf of the inputs.
    """

    graph: GraphModule
    plan: Plan
    constants: list[Tensor]
    """What rules made of their own parameters."""
    derived: list[Any]
    """Keys of the values computed from parameters alone, in the order in which they follow the parameters."""
    inputs: list[Any]
    """Example inputs."""
    target: Tensor | None
    """Example target, or None if it is part of the program."""
    dynamic: bool

    def weights(self) -> list[Tensor] | None:
        """The parameters as they are now, and what was computed from them; None if that has to be computed anew."""
        parameters = parameters_of(self.plan.graph)
        store = self.plan.derived.current(dict(parameters))
        if any(key not in store for key in self.derived):
            return None
        return [*self.constants, *(p.detach() for p in parameters.values()), *(store[key] for key in self.derived)]


def trace(
    plan: Plan,
    leaves: list[Any],
    target: Tensor | None,
    propagate: Propagation,
    *,
    dynamic: bool = False,
    portable: bool = False,
    compiled: bool = False,
) -> Program:
    """Write down one propagation.

    Args:
        plan: what to do; it was carried out before, so that what depends on parameters alone is there.
        leaves: example inputs.
        target: example target, or None if it is part of the program.
        propagate: seeds, sweeps and collects relevance.
        dynamic: leave the batch size open.
        portable: use operations that programs other than PyTorch know.
        compiled: the program stays in this process.

    Raises:
        CaptureError: if what is done depends on the values of the inputs.
    """
    if any(node.target is PACK for node in plan.graph.nodes):
        raise CaptureError(PACKED)
    parameters = parameters_of(plan.graph)
    store = dict(plan.derived.current(dict(parameters)))
    tensors = [i for i, x in enumerate(leaves) if isinstance(x, Tensor)]

    def run(weights: list[Tensor], inputs: list[Tensor], target: Tensor | None) -> Any:
        filled = list(leaves)
        for i, x in zip(tensors, inputs, strict=True):
            filled[i] = x
        own, rest = weights[: len(parameters)], weights[len(parameters) :]
        stand_ins = Weights(dict(zip(parameters, own, strict=True)), dict(zip(store, rest, strict=True)))
        return propagate(Run(plan, filled, weights=stand_ins), target)

    weights = [*(p.detach() for p in parameters.values()), *store.values()]
    table: dict[Any, Any] = {**core_aten_decompositions(), **PORTABLE} if portable else {}
    table |= WRITING
    if LINEAR is not None:
        table[LINEAR] = _linear_here if compiled else _linear
    try:
        with _plain_kernels() if portable else nullcontext():
            mode: Any = "symbolic" if dynamic else "real"
            graph = make_fx(run, decomposition_table=table, tracing_mode=mode, _allow_non_fake_inputs=True)(
                weights, [leaves[i].detach() for i in tensors], target
            )
    except Exception as error:  # whatever an operation raises that cannot be traced
        raise CaptureError(
            f"the propagation cannot be written down as one program ({reason_of(error)}). Operations whose shapes "
            "depend on values, such as the routing of experts, run eagerly only."
        ) from error
    for node in graph.graph.find_nodes(op="call_function", target=aten.view.default):
        node.target = aten.reshape.default  # the compiler's memory format of a single image need not be the kernel's
    constants = _lift_constants(graph)
    return Program(graph, plan, constants, list(store), leaves, target, dynamic)


PACKED = (
    "packed sequences run eagerly only, by attribute and explain: how many rows they have depends on their lengths. "
    "For a program, give the layer the padded batch and pick the last step of every sample, "
    "output[torch.arange(len(x)), lengths - 1]: in one direction this computes the same."
)


def _lift_constants(graph: GraphModule) -> list[Tensor]:
    """Make plain arguments of all that the graph takes, constants of rules (the bounds of z^B) first."""
    graph.graph.set_codegen(CodeGen())
    first = next(iter(graph.graph.nodes))
    constants: list[Tensor] = []
    lifted: dict[str, Node] = {}
    for node in graph.graph.find_nodes(op="get_attr"):
        name = str(node.target)
        if name not in lifted:
            constants.append(getattr(graph, name))
            with graph.graph.inserting_before(first):
                lifted[name] = graph.graph.placeholder(f"constant{len(constants)}")
        node.replace_all_uses_with(lifted[name])
        graph.graph.erase_node(node)
    for name in lifted:
        delattr(graph, name)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return constants


# ---------------------------------------------------------------------------------------------------------------------
# Operations that compilers do not take
# ---------------------------------------------------------------------------------------------------------------------


def _written(operation: Any) -> Callable[..., Tensor]:
    """An operation that writes into a tensor that it is given."""

    def written(*args: Any, **out: Tensor) -> Tensor:
        (into,) = out.values()
        return into.copy_(operation(*args))

    return written


def _linear(a: Tensor, w: Tensor, b: Tensor | None, *_: Any) -> Tensor:
    return torch.nn.functional.linear(a, w, b)


WRITING: dict[Any, Any] = {
    aten.div.out: _written(aten.div.Tensor),
    aten.threshold_backward.grad_input: _written(aten.threshold_backward.default),
}


def _linear_here(a: Tensor, w: Tensor, b: Tensor | None, *_: Any) -> Tensor:
    product: Tensor = torch.ops.relprop.linear(a, w, b)
    return product


# ---------------------------------------------------------------------------------------------------------------------
# Operations that have no name outside of PyTorch
# ---------------------------------------------------------------------------------------------------------------------


@contextmanager
def _plain_kernels() -> Iterator[None]:
    """Attention as products and a softmax, an LSTM step by step."""
    with sdpa_kernel(SDPBackend.MATH), torch.backends.mkldnn.flags(enabled=False):
        yield


def _convolution_backward(
    g: Tensor, x: Tensor, w: Tensor, bias: Any, stride: Any, padding: Any, dilation: Any, transposed: bool, *rest: Any
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    _, groups, wanted = rest
    if wanted[1] or wanted[2]:
        raise NotImplementedError("gradients of weights")
    return input_gradient(g, w, x.shape, stride, padding, dilation, transposed, groups), None, None


def _max_pool_backward(g: Tensor, x: Tensor, *rest: Any) -> Tensor:
    """Every window's value goes to the place of its maximum."""
    index, dims = rest[-1], x.ndim - (len(rest[0]) if len(rest[0]) > 1 else 2)
    flat = torch.zeros_like(x).flatten(dims)
    return flat.scatter_add(-1, index.flatten(dims), g.flatten(dims)).reshape(x.shape)


def _adaptive_average_backward(g: Tensor, x: Tensor) -> Tensor:
    """Aᵀ g B for an average over rows A and columns B."""
    a, b = (
        _windows(n, [(i * n // m, -(-(i + 1) * n // m)) for i in range(m)], like=g)
        for n, m in zip(x.shape[-2:], g.shape[-2:], strict=True)
    )
    return a.mT @ g @ b


def _average_backward(
    g: Tensor,
    x: Tensor,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor: int | None,
) -> Tensor:
    """The same for windows of one size; those that leave the padded image are cut off."""
    matrices = []
    for d, (n, m) in enumerate(zip(x.shape[-2:], g.shape[-2:], strict=True)):
        k, s, p = (list(v)[d % len(v)] for v in (kernel, stride or kernel, padding))
        spans = [(i * s - p, min(i * s - p + k, n + p)) for i in range(m)]
        matrices.append(_windows(n, spans, g, count_include_pad, whole=divisor is not None))
    result = matrices[0].mT @ g @ matrices[1]
    return result if divisor is None else result / divisor


def _windows(n: int, spans: list[tuple[int, int]], like: Tensor, padded: bool = True, whole: bool = False) -> Tensor:
    """A matrix [windows, n] that averages (or sums, if ``whole``) the values of each window."""
    rows = []
    for start, end in spans:
        inside = range(max(start, 0), min(end, n))
        size = 1 if whole else (end - start if padded else len(inside))
        rows.append([(1 / size if i in inside else 0.0) for i in range(n)])
    return torch.tensor(rows, dtype=like.dtype, device=like.device)


def _copysign(x: Tensor, y: Tensor) -> Tensor:
    return torch.where(y < 0, -x.abs(), x.abs())


def _threshold_backward(g: Tensor, x: Tensor, threshold: float) -> Tensor:
    return torch.where(x <= threshold, 0, g)


PORTABLE: dict[Any, Any] = {
    aten.convolution_backward.default: _convolution_backward,
    aten.max_pool2d_with_indices_backward.default: _max_pool_backward,
    aten._adaptive_avg_pool2d_backward.default: _adaptive_average_backward,
    aten.avg_pool2d_backward.default: _average_backward,
    aten.copysign.Tensor: _copysign,
    aten.threshold_backward.default: _threshold_backward,
}
