"""Fake quantisation, however it is called, as one operation: numbers that are rounded."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node

from ..errors import CaptureError
from ..graph.arguments import argument, arguments
from ..graph.facts import REWRITTEN
from ..graph.graph import Graph, calls, place
from ..graph.ops import fake_quantised

aten = torch.ops.aten

OBSERVED = aten._fused_moving_avg_obs_fq_helper_functional.default
CALLS = {
    aten.fake_quantize_per_tensor_affine.tensor_qparams,
    aten.fake_quantize_per_channel_affine.default,
    aten._fake_quantize_per_tensor_affine_cachemask_tensor_qparams.default,
    aten.fake_quantize_per_tensor_affine_cachemask.default,
    aten.fake_quantize_per_channel_affine_cachemask.default,
    OBSERVED,
}
REWRITTEN.update(CALLS)


def name_fake_quantisation(graph: Graph) -> None:
    """Put one operation in the place of all that round to what integers stand for.

    Raises:
        CaptureError: if an observer is on, which changes the rounding at every call.
    """
    for node in list(graph.nodes):
        if not calls(node) or node.target not in CALLS:
            continue
        given = arguments(node)
        several = isinstance(node.meta.get("val"), (tuple, list))
        results = [u for u in node.users if argument(u, 1) == 0] if several else [node]
        for result in results:
            with graph.fx.inserting_before(node):
                new = graph.fx.call_function(*_call(graph, node, given))
            new.meta = {**node.meta, "val": result.meta["val"]}
            graph.replace(result, new)


def _call(graph: Graph, node: Node, given: dict[str, Any]) -> tuple[Any, tuple[Any, ...]]:
    x, low, high = given["self"], given["quant_min"], given["quant_max"]
    if not isinstance(given["scale"], Node):
        fixed = (x, given["scale"], given["zero_point"], low, high)
        return aten.fake_quantize_per_tensor_affine.default, fixed
    axis, on = given.get("axis"), given.get("fake_quant_enabled", given.get("fake_quant_on"))
    if node.target is OBSERVED:
        axis = given["ch_axis"] if given["per_row_fake_quant"] else None
        observer = given["observer_on"]
        if observer not in graph.parameters or bool(graph.lookup(graph.parameters[observer])):
            raise CaptureError(
                f"{place(node)} observes what it quantises, and rounds in another way at every call. Call "
                "model.apply(torch.ao.quantization.disable_observer) before explaining the model."
            )
    return fake_quantised, (x, given["scale"], given["zero_point"], axis, low, high, on)
