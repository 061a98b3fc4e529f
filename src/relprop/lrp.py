"""The one door: ``LRP(model).attribute(x, target)``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn
from torch.export import ExportedProgram

from .capture.capturer import Capturer
from .classes import names_of, resolved
from .composite import Composite
from .composites import Choice
from .engine.given import Given
from .engine.micro_batch import answers_in_parts
from .engine.plan import Plan
from .engine.planning import Report
from .engine.question import Channels, How, Question, SeedName, Wrt, together
from .engine.session import Bias, Session
from .engine.trace import Trace
from .explanation import Explanation
from .programs.compiled import Compiled
from .programs.export import Format, format_of, save
from .programs.program import program_of
from .progress import bar
from .targets import Targets


class LRP:
    """Layer-wise Relevance Propagation for a captured model.

    Args:
        model: an ``nn.Module``, an ``ExportedProgram``, or the path of a ``.pt2`` or ``.onnx`` file.
        composite: which rule for which operation: a name from :mod:`relprop.composites`, a
            :class:`~relprop.composite.Composite`, ``(selector, rule)`` pairs, or one rule for every linear operation.
            "auto" picks one by what the graph contains, and says which in the plan.
        bias: what happens to the share of biases: "absorb" (it is booked as a sink), "redistribute" (the inputs of the
            neuron share it equally) or "zero" (biases are left out of numerators and denominators).
        classes: the names of the classes, in order, or a dict from numbers to names; by default what the model's
            ``config.id2label`` says. They may stand for numbers in targets, and stand in titles.

    Raises:
        CaptureError: if ``model`` is none of these, or the file cannot be loaded.
        ImportError: if packages are missing that read ONNX.
        SelectionError: if there is no composite of that name.
        TypeError: if ``classes`` are not strings.
        ValueError: if ``bias`` is no policy, or ``classes`` leave numbers out.
    """

    def __init__(
        self,
        model: nn.Module | ExportedProgram | str | Path,
        composite: Choice = "auto",
        *,
        bias: Bias = "absorb",
        classes: Sequence[str] | Mapping[int, str] | None = None,
    ):
        self.session = Session(Capturer(model), composite, bias)
        self.classes = names_of(classes, model)
        """The names of the classes, if they are known."""

    @property
    def composite(self) -> Composite | None:
        """Which rule for which operation; None is "auto"."""
        return self.session.composite

    @property
    def bias(self) -> Bias:
        """What happens to the share of biases."""
        return self.session.bias

    @property
    def _capturer(self) -> Capturer:
        return self.session.capturer

    def attribute(
        self,
        inputs: Any,
        target: Targets = None,
        *,
        wrt: Wrt = None,
        seed: SeedName = "output",
        create_graph: bool = False,
        checkpoint: bool = False,
        micro_batch: int | None = None,
        progress: bool = True,
    ) -> Any:
        """Relevance of the inputs.

        Args:
            inputs: a tensor, a tuple (positional arguments) or a dict (keyword arguments), samples first.
            target: what to explain: None (the predicted class of an output [B, C], or the output itself if it is [B] or
                [B, 1]), an int, a LongTensor [B], an index tuple, a function from the output to one scalar per sample,
                or :func:`relprop.targets.several` of these. -1 is the last class. A list is taken for several, too,
                unless it is of as many numbers as there are samples, which could mean two things.
            wrt: names or positions of the inputs to explain; by default every floating-point input, and every integer
                input that chooses rows of an embedding or another table, which gets one value per id.
            seed: "output" starts with the explained value as relevance, "unit" with one.
            create_graph: keep the graph, so that relevance can be differentiated with respect to inputs and parameters
                (training on explanations, Ross et al. 2017). It costs the memory of a forward and a backward pass.
            checkpoint: run the network once more, part by part on the way back, instead of holding all that this needs:
                memory grows with the square root of the depth. It has no effect together with ``create_graph``.
            micro_batch: explain so many samples at a time, when all at once do not fit into memory. Inputs with the
                samples in their first dimension, and indices per sample, are split; the other inputs are shared by all
                parts, and their relevance is summed. A function is called for each part.
            progress: show which part it is at, on a terminal and where tqdm is installed.

        Returns:
            Relevance in the structure and shape of the inputs; None for an input that is not explained.

        Raises:
            InputError, TargetError, CaptureError, UnsupportedOperation: with what came, and what was expected.
            ValueError: if there is no such seed, or ``micro_batch`` is no number of samples.
        """
        given, question = Given.of(inputs), Question.of(resolved(target, self.classes), wrt, seed)
        how = How(differentiable=create_graph, checkpoint=checkpoint)
        shown = bar("attribute") if progress else iter
        answers = answers_in_parts(self.session, given, question, how, micro_batch, shown)
        return given.like(together(answers, question.several))

    def explain(
        self,
        inputs: Any,
        target: Targets = None,
        *,
        wrt: Wrt = None,
        seed: SeedName = "output",
        record: str | Iterable[str] = (),
        mask: Mapping[str, Channels] | None = None,
        at: tuple[str, Channels] | str | None = None,
        checkpoint: bool = False,
        micro_batch: int | None = None,
        progress: bool = True,
    ) -> Explanation:
        """Relevance of the inputs, with the ledger and the relevance of hidden tensors.

        Args:
            inputs: as in :meth:`attribute`.
            target: as in :meth:`attribute`.
            wrt: as in :meth:`attribute`.
            seed: as in :meth:`attribute`.
            record: patterns of module paths, such as ``["layer3.*"]``, whose outputs' relevance is kept.
            mask: module path -> channels that relevance may pass through (conditional relevance, Achtibat et al. 2023):
                an int, a list of ints, a tensor that multiplies the relevance, or a function from activation to tensor.
            at: start at a hidden module instead of the output: its path, or ``(path, channels)``. Relevance starts as
                the activation of these channels.
            checkpoint: as in :meth:`attribute`.
            micro_batch: as in :meth:`attribute`. Values, books, outputs and hidden relevance are joined along the
                samples; what all samples share is summed. A hidden tensor or an output whose samples are not its first
                dimension cannot be joined, and raises an InputError.
            progress: as in :meth:`attribute`.

        Raises:
            SelectionError: if a pattern or path matches no module.
            InputError, TargetError, CaptureError, UnsupportedOperation: with what came, and what was expected.
        """
        given, question = Given.of(inputs), Question.of(resolved(target, self.classes), wrt, seed, record, mask, at)
        how, shown = How(accounting=True, checkpoint=checkpoint), bar("explain") if progress else iter
        answers = answers_in_parts(self.session, given, question, how, micro_batch, shown)
        return Explanation.of(given, question, answers, self.classes)

    def using(self, composite: Choice = "auto", *, bias: Bias | None = None) -> LRP:
        """The same model under another composite or bias policy; what was captured is shared, not captured again."""
        other = LRP.__new__(LRP)
        other.session = Session(self.session.capturer, composite, self.bias if bias is None else bias)
        other.classes = self.classes
        return other

    def plan(self, inputs: Any, *, wrt: Wrt = None) -> Plan:
        """The rule of every operation, node by node, before anything runs. ``print`` it."""
        given = Given.of(inputs)
        return self.session.plan(self.session.graph(given), given, wrt)

    def check(self, inputs: Any, *, wrt: Wrt = None) -> Report:
        """All operations without a rule at once, without running the model."""
        given = Given.of(inputs)
        return Report(self.session.plan(self.session.graph(given), given, wrt, strict=False))

    def trace(self, inputs: Any, target: Targets = None, *, wrt: Wrt = None, seed: SeedName = "output") -> Trace:
        """Where relevance goes, operation by operation: what reached an output, was handed on and was booked.

        ``print`` it; ``trace.worst`` is the operation whose books balance least. It holds all values of the network.

        Args:
            inputs: as in :meth:`attribute`.
            target: as in :meth:`attribute`, but one.
            wrt: as in :meth:`attribute`.
            seed: as in :meth:`attribute`.

        Raises:
            InputError, TargetError, CaptureError, UnsupportedOperation: with what came, and what was expected.
        """
        return self.session.trace(Given.of(inputs), Question.of(resolved(target, self.classes), wrt, seed))

    def compile(
        self, inputs: Any, target: Targets = None, *, wrt: Wrt = None, seed: SeedName = "output", dynamic: bool = False
    ) -> Compiled:
        """The propagation as one compiled program, for inputs of these shapes, with the same numbers.

        Recurrent layers are unrolled, step by step. Long sequences are run as they are written down, without Inductor,
        which would take very long for them. On a GPU the launches of a program of fixed shapes are captured as a CUDA
        graph, and repeated.

        Args:
            inputs: examples, as in :meth:`attribute`.
            target: a function is part of the program; an index is only an example.
            wrt: as in :meth:`attribute`.
            seed: as in :meth:`attribute`.
            dynamic: leave the number of samples open.

        Raises:
            CaptureError: if what is done depends on the values of the inputs.
            InputError, TargetError, UnsupportedOperation: with what came, and what was expected.
        """
        question = Question.of(resolved(target, self.classes), wrt, seed)
        program = program_of(self.session, Given.of(inputs), question, dynamic=dynamic, compiled=True)
        return Compiled(program, self.session, question, list(inputs) if isinstance(inputs, Mapping) else [])

    def export(
        self,
        path: str | Path,
        inputs: Any,
        target: Targets = None,
        *,
        wrt: Wrt = None,
        seed: SeedName = "output",
        format: Format | None = None,
        dynamic: bool = True,
    ) -> Path:
        """Save the explanation as a program of its own: inputs and target to output and relevance.

        It runs without relprop and without the model's code. Parameters are saved as they are now.

        Args:
            path: of the file.
            inputs: examples, as in :meth:`attribute`.
            target: a function is part of the program. An index is only an example: the program takes one of its own,
                a LongTensor [B] for an output [B, C], else [B, dimensions]. A negative number counts from the end;
                :data:`relprop.targets.PREDICTED` stands for the predicted class.
            wrt: as in :meth:`attribute`.
            seed: as in :meth:`attribute`.
            format: "pt2" (``torch.export.load``), "aoti" (``torch._inductor.aoti_load_package``) or "onnx"; by default
                what the path ends with.
            dynamic: leave the number of samples open.

        Raises:
            ValueError: if there is no such format.
            ImportError: if a format needs packages that are missing.
            CaptureError: if what is done depends on the values of the inputs.
            InputError, TargetError, UnsupportedOperation: with what came, and what was expected.
        """
        kind, question = format_of(path, format), Question.of(resolved(target, self.classes), wrt, seed)
        program = program_of(self.session, Given.of(inputs), question, dynamic=dynamic, portable=kind == "onnx")
        return save(program, Path(path), kind)
