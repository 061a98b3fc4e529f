"""An explanation as a file: a program that runs where neither relprop nor the model's code is installed."""

from __future__ import annotations

import re
import warnings
from itertools import chain
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import InputKind

from ..errors import CaptureError, reason_of
from .program import Program

Format = Literal["pt2", "aoti", "onnx"]
FORMATS: tuple[str, ...] = get_args(Format)


def format_of(path: str | Path, format: str | None) -> str:
    """The format that is asked for, or that the path's ending stands for.

    Raises:
        ValueError: if there is no such format.
    """
    kind = Path(path).suffix.removeprefix(".") if format is None else format
    if kind not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, got {kind!r} for {Path(path).name!r}")
    return kind


class Artefact(nn.Module):
    """A traced propagation with its parameters: ``(output, relevance) = artefact(*inputs, target)``.

    Several outputs and several explained inputs follow each other, outputs first.
    """

    def __init__(self, program: Program):
        super().__init__()
        weights = program.weights()
        assert weights is not None
        self.graph, self.with_target = program.graph, program.target is not None
        placeholders = [n for n in program.graph.graph.nodes if n.op == "placeholder"]
        self.names: list[str | None] = []
        for i, (node, value) in enumerate(zip(placeholders, weights, strict=False)):
            self.names.append(f"weight{i}" if node.users else None)
            if node.users:
                self.register_buffer(f"weight{i}", value)
        self.unused = torch.zeros(())

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        tensors, target = (list(inputs[:-1]), inputs[-1]) if self.with_target else (list(inputs), None)
        weights = [self.unused if name is None else getattr(self, name) for name in self.names]
        results = self.graph(*weights, *(x.clone(memory_format=torch.contiguous_format) for x in tensors), target)
        return tuple(x for x in results if isinstance(x, Tensor))


def save(program: Program, path: Path, kind: str) -> Path:
    """Write a traced propagation to a file.

    Raises:
        ImportError: if the format needs packages that are missing.
        CaptureError: if PyTorch cannot export it.
    """
    given = [x for x in program.inputs if isinstance(x, Tensor)]
    arguments = (*given, *([] if program.target is None else [program.target]))
    batch = {0: Dim.AUTO} if program.dynamic else None
    shapes: Any = (tuple(batch for _ in arguments),)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            exported = torch.export.export(Artefact(program), arguments, dynamic_shapes=shapes, strict=False)
    except Exception as error:  # torch.export has no common base class for its many reasons to refuse
        raise CaptureError(f"the traced propagation cannot be exported: {reason_of(error)}") from error
    names = name_ends(exported, program)
    path.parent.mkdir(parents=True, exist_ok=True)
    WRITERS[kind](exported, path, names)
    return path


Names = tuple[list[str], list[str]]
"""Of what enters a program, and of what leaves it."""


def name_ends(exported: ExportedProgram, program: Program) -> Names:
    """Call what enters and leaves a program by its name: the inputs, ``target``, ``output``, ``relevance_<input>``.

    Within torch's own files a name that torch itself uses gets a number: ``output_1``.
    """
    graph = program.plan.graph
    inputs = [_identifier(n) for n, x in zip(graph.input_names, program.inputs, strict=True) if isinstance(x, Tensor)]
    given = [spec for spec in exported.graph_signature.input_specs if spec.kind == InputKind.USER_INPUT]
    of_inputs = sorted({*chain(*program.plan.sources.values())})
    explained = [f"relevance_{_identifier(graph.input_names[i])}" for i in of_inputs]
    count = len(exported.graph_signature.output_specs) - len(explained)
    outputs = ["output"] if count == 1 else [f"output_{i}" for i in range(count)]
    wanted = [*zip(given, [*inputs, "target"], strict=False)]
    wanted += zip(exported.graph_signature.output_specs, [*outputs, *explained], strict=True)
    nodes = {node.name: node for node in exported.graph.nodes}
    for spec, name in wanted:
        node = nodes.get(spec.arg.name)
        if node is not None:
            node._rename(name)
            spec.arg.name = node.name
    exported.graph_module.recompile()
    return [*inputs, "target"][: len(given)], [*outputs, *explained]


def _identifier(name: str) -> str:
    """The name of an input in letters, digits and underscores; a position has none of its own."""
    word = re.sub(r"\W+", "_", name).strip("_")
    return f"input_{word}" if not word or word[0].isdigit() else word


def _pt2(exported: ExportedProgram, path: Path, names: Names) -> None:
    torch.export.save(exported, path)


def _aoti(exported: ExportedProgram, path: Path, names: Names) -> None:
    torch._inductor.aoti_compile_and_package(exported, package_path=str(path))


def _onnx(exported: ExportedProgram, path: Path, names: Names) -> None:
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(f'ONNX needs onnx and onnxscript ({error}); run: pip install "relprop[onnx]"') from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        named: Any = dict(zip(("input_names", "output_names"), names, strict=True))
        torch.onnx.export(exported, f=str(path), dynamo=True, external_data=False, verbose=False, **named)


WRITERS = {"pt2": _pt2, "aoti": _aoti, "onnx": _onnx}
