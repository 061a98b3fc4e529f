"""What a page is about: a model that can be asked about pictures or texts, and how much it may be asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    from relprop.lrp import LRP


class Refused(Exception):
    """Something cannot be done; the message is one sentence that says why, and what can be done instead."""


@dataclass(frozen=True)
class Limits:
    """How much one job may be."""

    seconds: float = 60.0
    """Then it is stopped."""
    bytes: int = 10_000_000
    """Of an upload."""
    pixels: int = 25_000_000
    """Of a picture, as its header says; no larger one is decoded."""


@dataclass(frozen=True)
class Sample:
    """What a model reads, a batch of one, with what people see of it."""

    inputs: Any
    picture: Any = None
    """Of a picture what the model sees of it; None shows the input."""
    tokenizer: Any = None
    """Of a text what names its ids."""


class Subject(Protocol):
    """A model with what is known of its inputs. It lives in the process that runs it."""

    @property
    def lrp(self) -> LRP:
        """The model under "auto"."""

    @property
    def reads_text(self) -> bool:
        """Whether it is asked about texts; else about pictures."""

    def picture(self, data: bytes, name: str, limits: Limits) -> Sample:
        """The sample in a file of a picture.

        Raises:
            Refused: if it cannot be read, or is too large.
        """

    def text(self, text: str) -> Sample:
        """The sample of a text.

        Raises:
            Refused: if it is not what the model reads.
        """

    def target(self, asked: int | str | None, inputs: Any) -> Any:
        """What ``LRP.explain`` is given as target: a class, or of a model that writes the next token.

        Args:
            asked: a class by number or name, or a token as text; None is the predicted one.
            inputs: of the sample, as the model reads them.

        Raises:
            Refused: if there is none such.
        """


Opener: TypeAlias = Callable[[], Subject]
"""Makes a subject, in another process: it must be picklable. Raises Refused if there is no such model."""
