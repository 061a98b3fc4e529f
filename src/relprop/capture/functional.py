"""Exported programs without operations that change a tensor in place, and without shorthand.

torch can rewrite a program so (``run_decompositions``), but traces it once more for that, which takes longer than the
export did. Most programs need no such rewriting: nobody else sees what they change in place, or they change nothing.
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Node

from ..graph.arguments import argument
from ..graph.facts import TABLE, facts
from ..graph.graph import calls
from ..passes.decompose import maker_of

aten = torch.ops.aten

EVERYDAY = """
    absolute addcdiv arccos arccosh arcsin arcsinh arctan arctanh atleast_1d atleast_2d atleast_3d
    binary_cross_entropy binary_cross_entropy_with_logits block_diag broadcast_tensors clip column_stack concat
    concatenate cosine_embedding_loss cosine_similarity cross_entropy_loss cumulative_trapezoid diag_embed divide
    dstack fft_fftshift fft_ifftshift fix fliplr flipud float_power hstack huber_loss index_copy index_fill inner
    kl_div l1_loss linalg_matrix_norm linalg_matrix_power linalg_multi_dot linalg_norm linalg_vecdot
    margin_ranking_loss matrix_power meshgrid mse_loss msort nanmean nansum negative nll_loss_nd poisson_nll_loss
    row_stack smooth_l1_loss special_erf special_erfc special_exp2 special_expit special_expm1 special_gammaln
    special_log1p special_log_softmax special_logit special_logsumexp special_ndtr special_psi special_sinc
    special_softmax std_mean subtract sum_to_size take tensordot trapezoid trapz triplet_margin_loss vander vstack
""".split()
"""Operations that are short for others, which have rules."""


@cache
def everyday() -> dict[Any, Any]:
    """How torch writes them out."""
    known, packets = torch.export.default_decompositions(), [getattr(aten, name) for name in EVERYDAY]
    overloads = [getattr(packet, name) for packet in packets for name in packet.overloads()]
    return {op: known[op] for op in overloads if op in known}


def functional(program: ExportedProgram) -> ExportedProgram:
    """The program in operations that have rules, rewritten by torch where that is necessary."""
    if all(_is_known(node) for node in program.graph.nodes):
        return program
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return program.run_decompositions(everyday())


def _is_known(node: Node) -> bool:
    """Whether an operation changes nothing in place and is one that rules or passes know, or makes no numbers."""
    if not calls(node):
        return node.op in ("placeholder", "output")
    target: Any = node.target
    if _is_mutable(target) or target in everyday():
        return False
    if getattr(target, "namespace", "") == OURS or target in TABLE or maker_of(node) is not None:
        return True
    return not _holds_numbers(node) or not any(map(_holds_numbers, node.all_input_nodes))


def _holds_numbers(node: Node) -> bool:
    value = node.meta.get("val")
    values = value if isinstance(value, (tuple, list)) else [value]
    return any(isinstance(v, Tensor) and (v.dtype.is_floating_point or v.dtype.is_complex) for v in values)


OURS = "relprop"
"""The namespace of the operations that stand for whole layers while a model is exported."""


def replace_in_place(program: ExportedProgram) -> None:
    """Let operations that change a tensor in place make a new one, where nobody else sees the old one."""
    if _replace_unseen(program):
        return  # dropout that is off, but not in place, is left to the passes
    for node in list(program.graph.nodes):
        if calls(node) and (node.target in IN_NAME or _is_switched_off(node)):  # it hands on the tensor itself
            node.replace_all_uses_with(argument(node, 0))
            program.graph.erase_node(node)
    _replace_unseen(program)


def _replace_unseen(program: ExportedProgram) -> bool:
    """Whether nothing is changed in place any more."""
    changing = [node for node in program.graph.nodes if calls(node) and _is_mutable(node.target)]
    for node in changing:
        new: Any = _not_in_place(node.target)
        if new is not None and (_is_unseen(argument(node, 0)) or (new in DROPOUT and not argument(node, "train"))):
            node.target = new
    return not any(_is_mutable(node.target) for node in changing)


def _is_switched_off(node: Node) -> bool:
    return node.target in DROPOUT and not argument(node, "train")


def _is_mutable(target: Any) -> bool:
    return isinstance(target, torch._ops.OpOverload) and target._schema.is_mutable


def _is_unseen(changed: Any) -> bool:
    """Whether only the operation that changes a tensor looks at it."""
    return isinstance(changed, Node) and facts(changed).fresh and len(changed.users) == 1


def _not_in_place(target: Any) -> Any:
    """``aten.relu`` for ``aten.relu_``; None if there is none."""
    name = target._schema.name.removeprefix("aten::")
    plain = getattr(aten, name[:-1], None) if name.endswith("_") else None
    return getattr(plain, target._overloadname, None)


IN_NAME = {aten.detach_.default}
"""Operations that change what autograd knows of a tensor, and none of its values."""
DROPOUT = {aten.dropout.default, aten.feature_dropout.default}
