"""A model of the command line as the page asks about it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from relprop.app import Limits, Refused, Sample

from .failures import Failure
from .models import Model, load
from .options import InputOptions, ModelOptions
from .reading import picture_in, text_of
from .targets import target_of

if TYPE_CHECKING:
    from relprop.lrp import LRP


@dataclass(frozen=True)
class Served:
    """What ``relprop.app.Subject`` asks for."""

    model: Model
    bias: Literal["absorb", "redistribute", "zero"]

    @cached_property
    def lrp(self) -> LRP:
        return self.model.lrp("auto", self.bias)

    @property
    def reads_text(self) -> bool:
        return self.model.tokenizer is not None

    def picture(self, data: bytes, name: str, limits: Limits) -> Sample:
        with _refusing():
            sample = picture_in(io.BytesIO(data), name, self.model, limits.pixels)
        return Sample(sample.inputs, sample.picture)

    def text(self, text: str) -> Sample:
        with _refusing():
            return Sample(text_of(text, "text", self.model).inputs, tokenizer=self.model.tokenizer)

    def target(self, asked: int | str | None, inputs: Any) -> Any:
        with _refusing():
            return target_of([] if asked is None else [str(asked)], self.model, inputs)


def served(word: str, options: ModelOptions, inputs: InputOptions) -> Served:
    """
    Raises:
        Refused: if there is no such model, or it cannot be loaded.
    """
    with _refusing():
        return Served(load(word, options, inputs), options.bias)


@contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except Failure as error:
        raise Refused(str(error)) from error
