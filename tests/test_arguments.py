"""An argument means the same in its place, by its name, and left out where it has its default: of every operation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

import relprop
from relprop.graph.arguments import REQUIRED, argument, arguments, signature
from relprop.graph.facts import TABLE
from relprop.graph.ops import PACK, PAD, affine

from .models import assert_same
from .operation_calls import CALLS, by_name, called, drawn

aten = torch.ops.aten


class Calling(nn.Module):
    """One call of an operation: its tensors are inputs, with one sample, and all that it returns is one row."""

    def __init__(self, operation: Any, given: dict[str, Any]):
        super().__init__()
        self.operation = operation
        self.constants = [k for k in given if k in PARAMETERS]
        for name in self.constants:
            self.register_buffer(name, given[name]) if isinstance(given[name], Tensor) else setattr(
                self, name, given[name]
            )
        self.leaves, self.spec = tree_flatten({k: v for k, v in given.items() if k not in PARAMETERS})
        self.places = [i for i, v in enumerate(self.leaves) if _holds_values(v)]

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        return tuple(_real(self.leaves[i])[None] for i in self.places)

    def forward(self, *x: Tensor) -> Tensor:
        leaves = list(self.leaves)
        for i, v in zip(self.places, x, strict=True):
            leaves[i] = torch.view_as_complex(v[0]) if leaves[i].is_complex() else v[0]
        results = self.operation(**tree_unflatten(leaves, self.spec), **{k: getattr(self, k) for k in self.constants})
        if TABLE[self.operation].kind == "batch norm" and isinstance(results, tuple):
            results = results[0]  # the others are for its own gradient
        values = map(_real, filter(_holds_values, tree_leaves(results)))
        # beside them all inputs themselves: an operation may hold its result constant
        return torch.cat([y.reshape(1, -1).double() for y in (*values, *x)], 1)


PARAMETERS = {
    *("weight", "bias", "running_mean", "running_var", "params", "w_ih", "w_hh", "b_ih", "b_hh"),
    "random_samples",
}
"""Arguments that are constants of a model."""


def _real(value: Tensor) -> Tensor:
    return torch.view_as_real(value.resolve_conj()) if value.is_complex() else value


def _holds_values(value: Any) -> bool:
    return isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex())


def forms(program: ExportedProgram, operation: Any, *names: str) -> Iterator[str]:
    """The program, with the call of the operation written in one way after the other."""
    nodes = [node for node in program.graph.nodes if node.target is operation]
    named = [arguments(node) for node in nodes]
    by_name = {a.name for a in operation._schema.arguments if a.kwarg_only}
    for form in names:
        for node, given in zip(nodes, named, strict=True):
            node.args = tuple(v for k, v in given.items() if k not in by_name) if form == "in their places" else ()
            node.kwargs = {
                k: v
                for k, v in given.items()
                if (form != "in their places" or k in by_name)
                and (form != "left out" or not _is_default(v, signature(operation)[k][1]))
            }
        yield form


def _is_default(value: Any, default: Any) -> bool:
    return type(value) is type(default) and not isinstance(value, Tensor) and bool(value == default)


def explained(program: ExportedProgram, inputs: tuple[Tensor, ...]) -> tuple[Tensor, list[Tensor]]:
    found = relprop.LRP(program, "lrp0").explain(inputs, lambda y: y.flatten(1).sum(1))
    return found.output, [r for r in found.relevance if r is not None]


ELSEWHERE = {
    *(aten.lstm.data, aten.gru.data, aten.rnn_tanh.data, aten.rnn_relu.data, PACK, PAD),  # tests/test_packed.py
    # random, or in memory that nobody has written to: a program of that alone is refused
    *(aten.rand_like.default, aten.randn_like.default, aten.empty_like.default, aten.new_empty.default),
    aten.embedding.default,  # its table is a parameter, and relevance ends there: tests/test_ids.py
}
TOGETHER = {"b_ih", "b_hh"}
"""Arguments of which there are all or none."""
OPERATIONS = [op for op in CALLS if isinstance(op, torch._ops.OpOverload) and op not in ELSEWHERE]


@pytest.mark.parametrize("operation", by_name(OPERATIONS), ids=called)
@pytest.mark.filterwarnings("ignore")
def test_an_argument_means_the_same_in_its_place_by_its_name_and_left_out(operation: Any) -> None:
    random = torch.Generator().manual_seed(0)
    optional = [name for name, (_, default) in signature(operation).items() if default is not REQUIRED]
    for example in CALLS[operation]:
        full = {k: drawn(v, random) for k, v in example.items()}
        for left_out in (None, *optional):
            without = TOGETHER if left_out in TOGETHER else {left_out}
            given = {k: v for k, v in full.items() if k not in without}
            model = Calling(operation, given)
            try:
                expected = model(*model.inputs)
            except (RuntimeError, IndexError):
                continue  # the others make no sense without it
            program = torch.export.export(model, model.inputs, strict=False)
            relevance = None
            for form in forms(program, operation, "in their places", "left out" if left_out else "by their names"):
                output, received = explained(program, model.inputs)
                assert torch.allclose(output, expected, equal_nan=True), (form, left_out)
                relevance = received if relevance is None else relevance
                for got, wanted in zip(received, relevance, strict=True):
                    assert torch.allclose(got, wanted, rtol=1e-12, atol=1e-12, equal_nan=True), (form, left_out)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("options", [{}, {"bias": False}, {"stride": 2}, {"dilation": 2}], ids=str)
def test_padding_valid_is_no_padding(dims: int, options: dict[str, Any]) -> None:
    """``padding="valid"`` is torch's default, so captured calls leave it out."""
    kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
    valid, plain = (kind(2, 3, 3, padding=padding, **options).double() for padding in ("valid", 0))
    plain.load_state_dict(valid.state_dict())
    x = torch.randn(2, 2, *[7] * dims, dtype=torch.float64)
    got, wanted = (relprop.LRP(m, "epsilon").explain(x, lambda y: y.flatten(1).sum(1)) for m in (valid, plain))
    assert_same(got.output, valid(x))
    assert_same(got.relevance, wanted.relevance)


def test_arguments_of_our_own_operations() -> None:
    graph = torch.fx.Graph()
    x, scale, shift = map(graph.placeholder, ("x", "scale", "shift"))
    node = graph.call_function(affine, (x,), {"shift": shift, "scale": scale})
    assert list(arguments(node).values()) == [x, scale, shift]
    assert argument(node, "shift") is argument(node, 2) is shift
    with pytest.raises(TypeError, match="without its argument 'shift'"):
        argument(graph.call_function(affine, (x, scale)), "shift")
