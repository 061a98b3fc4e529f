"""The table of operations: every fact of every operation, on random tensors."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.fx import Node
from torch.utils._pytree import tree_leaves

import relprop.lrp  # noqa: F401 (rules and passes describe what they know)
from relprop.engine.nonnegative import is_nonnegative
from relprop.graph import ops
from relprop.graph.arguments import arguments, signature
from relprop.graph.facts import KEEPS, NONNEGATIVE, TABLE, describe

from .operation_calls import CALLS, X, by_name, called, drawn

aten = torch.ops.aten

WITHOUT = {
    operator.getitem,  # it takes a list
    ops.as_real,  # as view_as_real
    ops.shift_map,  # a bias, whatever the image: it takes an operation
    ops.written_activation,  # it takes a formula
    ops.written_softmax,  # it takes one, too
    aten.cudnn_batch_norm.default,  # needs a GPU
    *(aten.sym_size.int, aten.sym_stride.int, aten.sym_numel.default, aten.sym_storage_offset.default),
}
"""Operations without an example."""
RANDOM = {
    aten.bernoulli.default: {"self": X((20,), 0.0, 1.0)},
    aten.bernoulli.p: {"self": X((20,)), "p": 0.5},
    aten.native_dropout.default: {"input": X((20,)), "p": 0.5, "train": True},
}
"""Operations that are refused."""


def own(operation: Any) -> bool:
    """Whether relprop describes an operation itself: other tests register some of their own."""
    return not isinstance(operation, torch._ops.OpOverload) or operation.namespace == "aten"


def entries(fact: str) -> list[Any]:
    return [op for op, known in TABLE.items() if op in CALLS and getattr(known, fact) not in (None, False)]


def draws(operation: Any, positive: bool = False, times: int = 3) -> Iterator[dict[str, Any]]:
    """The arguments of the example calls, with other random numbers each time."""
    random = torch.Generator().manual_seed(1)
    for example in CALLS[operation]:
        for _ in range(times):
            yield {k: drawn(v, random, positive) for k, v in example.items()}


def tensors(values: Any) -> list[Tensor]:
    return [v for v in tree_leaves(values) if isinstance(v, Tensor)]


def first(given: dict[str, Any]) -> Tensor:
    return next(v for v in given.values() if isinstance(v, Tensor))


def test_every_operation_has_an_example() -> None:
    described = {op for op in TABLE if own(op)}
    assert described == {*CALLS, *WITHOUT, *RANDOM} - {ops.affine}  # which is a layer before it is an operation


def test_an_operation_is_described_in_one_place() -> None:
    with pytest.raises(ValueError, match=r"aten\.relu\.default is in the table"):
        describe("activation", aten.relu.default)


@pytest.mark.parametrize("operation", by_name(entries("fresh")), ids=called)
def test_a_fresh_result_lies_in_memory_of_its_own(operation: Any) -> None:
    for given in draws(operation, times=1):
        results = {t.untyped_storage().data_ptr() for t in tensors(operation(**given)) if t.numel()}
        assert not results & {t.untyped_storage().data_ptr() for t in tensors(given) if t.numel()}


@pytest.mark.parametrize("operation", by_name(entries("pointwise")), ids=called)
def test_a_pointwise_value_depends_on_its_place_alone(operation: Any) -> None:
    """Where the places change, the values change in the same way; and every tensor may have the shape of the result."""
    for given in draws(operation):
        shape = torch.broadcast_shapes(*(t.shape for t in tensors(given)))
        order = torch.randperm(shape.numel())
        whole = {k: v.expand(shape) if isinstance(v, Tensor) else v for k, v in given.items()}
        moved = {k: v.flatten()[order].reshape(shape) if isinstance(v, Tensor) else v for k, v in whole.items()}
        y, z = operation(**given), operation(**moved)
        assert y.shape == shape
        torch.testing.assert_close(z.flatten(), y.flatten()[order], equal_nan=True)


# -- signs ------------------------------------------------------------------------------------------------------------


def node_of(operation: Any, given: dict[str, Any]) -> tuple[Node, set[Node]]:
    """A call in a graph, and all tensors that enter it."""
    graph, entering = torch.fx.Graph(), set()

    def placed(value: Any) -> Any:
        if isinstance(value, list):
            return [placed(v) for v in value]
        if not isinstance(value, Tensor):
            return value
        node = graph.placeholder(f"x{len(entering)}")
        node.meta["val"] = value
        entering.add(node)
        return node

    node = graph.call_function(operation, (), {k: placed(v) for k, v in given.items()})
    node.meta["val"] = operation(**given)
    return node, entering


NUMBERS = (-2, -2.0, -1, -0.5, -0.0, 0, 0.5, 1, 3, True)


def other_numbers(operation: Any, given: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The call, and the call with other numbers, whole and broken, of both signs."""
    yield given
    for name, value in given.items():
        if (isinstance(value, (int, float)) and not isinstance(value, bool)) or name in ("min", "value", "nan"):
            for number in NUMBERS:
                changed = {**given, name: number}
                try:
                    operation(**changed)
                except Exception:
                    continue
                yield changed


def is_complex(node: Node) -> bool:
    return node.meta["val"].dtype.is_complex


def is_negative(values: Any) -> bool:
    return any(bool((t < 0).any()) for t in tensors(values) if t.dtype.is_floating_point)


@pytest.mark.parametrize("operation", by_name([op for op in CALLS if op in TABLE]), ids=called)
def test_what_is_known_to_be_nonnegative_is(operation: Any) -> None:
    sign, certain = TABLE[operation].sign, []
    for positive in (False, True):
        for start in draws(operation, positive):
            for given in other_numbers(operation, start):
                node, entering = node_of(operation, given)
                known = {n for n in entering if positive and not is_complex(n) and bool((n.meta["val"] >= 0).all())}
                found = is_nonnegative(node, known)
                assert not (found and is_negative(node.meta["val"])), given
                certain.append(found)
    if sign in (KEEPS, NONNEGATIVE) and not any(t.dtype.is_complex for t in tensors(node.meta["val"])):
        assert any(certain)
    if sign is NONNEGATIVE:
        assert all(certain)


@pytest.mark.parametrize("name", ["mul", "add", "div"])
def test_integers_have_signs_too(name: str) -> None:
    """Whole numbers are known by no sign, since they wrap around; truths are never negative."""
    h = torch.rand(3, dtype=torch.float64)
    for other, expected in ((torch.tensor([1, -1, 0]), False), (torch.tensor([1, 0, 1]) > 0, True)):
        node, entering = node_of(getattr(aten, name).Tensor, {"self": h, "other": other})
        known = {n for n in entering if n.meta["val"] is h or is_nonnegative(n, set())}
        assert is_nonnegative(node, known) is expected


# -- closed forms, views, what does nothing ---------------------------------------------------------------------------


@pytest.mark.parametrize("operation", by_name(entries("back")), ids=called)
def test_the_way_back_is_the_gradient(operation: Any) -> None:
    for given in draws(operation):
        name = next(iter(given))
        x = given[name].requires_grad_()
        y = operation(**given)
        m = torch.randn_like(y)
        (expected,) = torch.autograd.grad(y, x, m)
        node, _ = node_of(operation, {**given, name: x.detach()})
        _, *rest = arguments(node).values()
        assert torch.equal(TABLE[operation].back(m, x.shape, *rest), expected)


@pytest.mark.parametrize("operation", by_name(entries("in_order")), ids=called)
def test_a_view_in_order_keeps_the_order(operation: Any) -> None:
    for given in draws(operation):
        assert torch.equal(operation(**given).flatten(), first(given).flatten())


@pytest.mark.parametrize("operation", by_name(entries("ratio")), ids=called)
def test_a_ratio_is_that_of_value_and_argument(operation: Any) -> None:
    for given in draws(operation):
        x = given.pop("self")
        node, _ = node_of(operation, {"self": x, **given})
        _, *rest = arguments(node).values()
        ratio = TABLE[operation].ratio(x, *rest)
        assert ratio.untyped_storage().data_ptr() != x.untyped_storage().data_ptr()
        torch.testing.assert_close(ratio * x, operation(x, **given))
        zero = torch.zeros(1, dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(operation(zero, **given), zero)
        torch.testing.assert_close(TABLE[operation].ratio(zero.detach(), *rest), slope)


@pytest.mark.parametrize("operation", by_name(entries("by_output")), ids=called)
def test_what_the_output_tells_is_the_ratio(operation: Any) -> None:
    for given in draws(operation):
        x = first(given)
        c, y = torch.randn_like(x), operation(**given)
        torch.testing.assert_close(TABLE[operation].by_output(c, y) * x, c * y)


@pytest.mark.parametrize("operation", by_name(entries("in_place")), ids=called)
def test_in_place_is_the_same_function(operation: Any) -> None:
    for given in draws(operation):
        expected, x = operation(**given), first(given)
        assert TABLE[operation].in_place(x) is x
        assert torch.equal(x, expected)


@pytest.mark.parametrize("operation", by_name(entries("identity")), ids=called)
def test_an_identity_hands_on_its_first_argument(operation: Any) -> None:
    for given in draws(operation):
        assert torch.equal(operation(**given), first(given))


@pytest.mark.parametrize("operation", by_name(entries("cast")), ids=called)
def test_a_cast_changes_the_type_alone(operation: Any) -> None:
    for given in draws(operation):
        y = operation(**given)
        assert y.dtype == torch.float32
        assert torch.equal(y, first(given).float())


@pytest.mark.parametrize(
    "operation", by_name([op for op in entries("shape_only") if "empty" not in op._schema.name]), ids=called
)
def test_only_the_shape_counts(operation: Any) -> None:
    for given in draws(operation):
        name = next(iter(given))
        assert torch.equal(operation(**given), operation(**{**given, name: given[name] + 1}))


@pytest.mark.parametrize(
    "operation", by_name([op for op in TABLE if own(op) and TABLE[op].random is not None]), ids=called
)
def test_what_makes_an_operation_random(operation: Any) -> None:
    """With all of its switches set, another call gives other values, or other samples do; with one unset, never."""
    switches = TABLE[operation].random
    assert set(switches) <= set(signature(operation))
    if operation in WITHOUT:
        return
    example = RANDOM.get(operation) or CALLS[operation][0]
    given = {k: drawn(v, torch.Generator().manual_seed(0)) for k, v in example.items()}
    if "num_layers" in given:  # dropout is between layers
        return
    given = {**given, **{name: 0.5 if name in ("p", "dropout_p") else True for name in switches}}
    state = torch.get_rng_state()
    if "training" in switches and "running_mean" in given:
        y = operation(**{**given, "running_mean": given["running_mean"] + 1})
        assert torch.equal(tensors(y)[0], tensors(operation(**given))[0])  # the stored statistics do not count
    else:
        assert any(not torch.equal(tensors(operation(**given))[0], tensors(operation(**given))[0]) for _ in range(9))
    for name in switches:
        fixed = {**given, name: 0.0 if name in ("p", "dropout_p") else False}
        assert torch.equal(tensors(operation(**fixed))[0], tensors(operation(**fixed))[0])
    torch.set_rng_state(state)


@pytest.mark.parametrize("operation", by_name([op for op in CALLS if op in TABLE and TABLE[op].stopped]), ids=called)
def test_what_is_stopped_is_flat_or_a_scale(operation: Any) -> None:
    """Its gradient is zero or not defined; or it only scales with its argument, as a standard deviation does."""
    for given in draws(operation, times=1):
        x = first(given).requires_grad_()
        if operation is aten.heaviside.default:
            x.requires_grad_(False)  # torch has no gradient of it
        outputs = [y for y in tensors(operation(**given)) if y.requires_grad]
        if all(bool((torch.autograd.grad(y.sum(), x)[0] == 0).all()) for y in outputs):
            continue
        before, after = (tensors(operation(**{**given, "self": x.detach() * k})) for k in (1, 4))
        for y, z in zip(before, after, strict=True):
            power = torch.log2(z / y) / 2
            torch.testing.assert_close(power, power.flatten()[0].round(decimals=1).expand_as(power))
