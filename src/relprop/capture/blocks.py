"""Blocks of a model that run under another gradient mode are part of the graph like all others.

Relevance does not ask whether gradients are on. ``torch.no_grad`` and ``torch.enable_grad`` in a forward change
nothing: what is to be held constant is detached, or left out with the rule ``Stop``.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import PreDispatchTorchFunctionMode

BLOCK = torch.ops.higher_order.wrap_with_set_grad_enabled


@contextmanager
def one_mode() -> Iterator[None]:
    """Within it, a model that is traced does not change the gradient mode, and no change of it is written down."""
    traced = PreDispatchTorchFunctionMode.__torch_function__

    def ignoring(mode: Any, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch._C._set_grad_enabled:
            return None
        return traced(mode, function, types, args, kwargs)

    PreDispatchTorchFunctionMode.__torch_function__ = ignoring  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        PreDispatchTorchFunctionMode.__torch_function__ = traced  # type: ignore[method-assign]


def without_blocks(program: ExportedProgram) -> ExportedProgram:
    """A program with the operations of such blocks in their places; torch.export keeps them in graphs of their own."""
    if not _blocks(program.graph_module):
        return program
    module = deepcopy(program.graph_module)  # it holds no parameters, and may be a user's
    while blocks := _blocks(module):
        for node in blocks:
            _inline(module, node)
    module.recompile()
    return program._update(module, program.graph_signature)


def _blocks(module: GraphModule) -> list[Node]:
    return [node for node in module.graph.nodes if node.op == "call_function" and node.target is BLOCK]


def _inline(module: GraphModule, node: Node) -> None:
    _, block, *operands = node.args
    inner: GraphModule = getattr(module, block.target)  # type: ignore[union-attr, arg-type]
    given = iter(operands)
    copies: dict[Node, Any] = {}
    results: Any = ()
    with module.graph.inserting_before(node):
        for each in inner.graph.nodes:
            if each.op == "placeholder":
                copies[each] = next(given)
            elif each.op == "output":
                results = torch.fx.node.map_arg(each.args[0], copies.__getitem__)
            else:
                copies[each] = module.graph.node_copy(each, copies.__getitem__)
                if each.op == "get_attr":  # a block within
                    copies[each].target = name = f"{block.target}_{each.target}"  # type: ignore[union-attr]
                    setattr(module, name, getattr(inner, str(each.target)))
    for user in list(node.users):  # what picks one of the results
        assert user.target is operator.getitem
        result, name = results[user.args[1]], user.name
        user.replace_all_uses_with(result)
        module.graph.erase_node(user)
        if result in copies.values():
            result._rename(name)
    module.graph.erase_node(node)
    if not block.users:  # type: ignore[union-attr]
        module.graph.erase_node(block)  # type: ignore[arg-type]
