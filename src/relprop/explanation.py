"""The result of an explanation, and how it shows itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from .ledger import Ledger

if TYPE_CHECKING:
    from .plan import Plan


@dataclass
class Explanation:
    """What :meth:`relprop.LRP.explain` returns.

    Attributes:
        relevance: relevance of the inputs, in their structure; None for an input that is not explained.
        output: the model's output.
        target: what was explained: the class of every sample [B], or the target as it was given.
        value: the explained value of every sample, [B].
        relevances: relevance of hidden tensors, by module path (``record=``).
        ledger: where relevance went, per sample.
        plan: which rule ran where.
        inputs: the inputs as they were given.
    """

    relevance: Any
    output: Any
    target: Any
    value: Tensor
    ledger: Ledger
    plan: Plan
    inputs: Any
    relevances: dict[str, Tensor] = field(default_factory=dict)

    def figure(self, sample: int = 0, image: Any = None, **options: Any) -> Any:
        """Draw one sample as a matplotlib figure: a heatmap for images, a bar chart for series.

        Args:
            sample: which one of the batch.
            image: the image to lay under the heatmap, [C, H, W] in [0, 1]; by default the input, brought to [0, 1].
            options: passed to :func:`relprop.view.figure`.

        Raises:
            ValueError: if there is no relevance that can be drawn.
        """
        from . import view

        relevance, given = self._first(sample)
        if relevance.ndim == 3 or (relevance.ndim == 2 and given.ndim == 2):
            return view.figure(relevance, _unit(given) if image is None else image, **options)
        if relevance.ndim in (1, 2):
            return view.series(relevance, **options)
        raise ValueError(f"no picture for relevance of shape {tuple(relevance.shape)} of one sample; use .relevance itself.")

    def save(self, path: str | Path, sample: int = 0, image: Any = None, **options: Any) -> Path:
        """Write one sample as a PNG picture and return its path."""
        path = Path(path)
        figure = self.figure(sample, image, **options)
        figure.savefig(path, bbox_inches="tight", dpi=options.pop("dpi", 120))
        return path

    def _repr_png_(self) -> bytes | None:
        import io

        try:
            buffer = io.BytesIO()
            self.figure().savefig(buffer, format="png", bbox_inches="tight", dpi=100)
        except (ImportError, ValueError):
            return None  # without the extra, or without a picture, the notebook shows the text
        return buffer.getvalue()

    def __repr__(self) -> str:
        return f"Explanation of {_short(self.target)}\n{self.ledger}"

    def _first(self, sample: int) -> tuple[Tensor, Tensor]:
        import torch.utils._pytree as pytree

        pairs = zip(pytree.tree_leaves(self.relevance), pytree.tree_leaves(self.inputs), strict=False)
        for relevance, given in pairs:
            if isinstance(relevance, Tensor):
                if not -len(relevance) <= sample < len(relevance):
                    raise ValueError(f"there are {len(relevance)} samples, no number {sample}")
                return relevance[sample].detach().cpu(), given[sample].detach().cpu()
        raise ValueError("no input has relevance")


def _unit(image: Tensor) -> Tensor:
    """An image of any range, brought to [0, 1] to be looked at."""
    image = image.float()
    low, high = image.min(), image.max()
    return (image - low) / (high - low) if high > low else image * 0


def _short(target: Any) -> str:
    if isinstance(target, Tensor):
        values = target.flatten().tolist()
        return f"target {values[0] if len(values) == 1 else values}"
    return f"target {target!r}"
