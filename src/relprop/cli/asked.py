"""What most commands begin with: a model, its rules, and samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .failures import Usage, meant
from .models import Model, load
from .options import Common, InputOptions, ModelOptions
from .output import note
from .reading import Sample, samples

if TYPE_CHECKING:
    from relprop.lrp import LRP


@dataclass(frozen=True)
class Asked:
    """A model that is ready to be explained, and samples for it."""

    model: Model
    lrp: LRP
    samples: list[Sample]
    common: Common

    @classmethod
    def of(
        cls,
        word: str,
        inputs: Sequence[str],
        composite: str,
        model_options: ModelOptions | None,
        input_options: InputOptions | None,
        common: Common | None,
    ) -> Asked:
        """
        Raises:
            Usage, Failure: whatever is wrong with what was typed, or with the files; what is cheap to see comes first.
        """
        model_options, input_options = model_options or ModelOptions(), input_options or InputOptions()
        common = common or Common()
        check_composite(composite)
        model = load(word, model_options, input_options)
        found = samples(inputs, model, input_options.columns)
        if any(sample.picture is not None for sample in found) and not model.pixels.known:
            note(
                "pixels are given to the model as numbers in [0, 1]; --mean and --std if it was trained on others",
                common,
            )
        return cls(model, model.lrp(composite, model_options.bias), found, common)


def check_composite(name: str) -> None:
    """
    Raises:
        Usage: if there is no such composite.
    """
    from relprop.composites import NAMED

    if name != "auto" and name not in NAMED:
        raise Usage(f"there is no composite {name!r}; {meant(name, ['auto', *sorted(NAMED)])}")
