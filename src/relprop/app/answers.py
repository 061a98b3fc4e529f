"""From questions to answers; this runs in the process of the worker."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .asked import SCALES, Abilities, About, Answer, Explain, Guess, Question, Report, Shown
from .subject import Limits, Opener, Sample, Subject

if TYPE_CHECKING:
    from relprop.explanation import Explanation
    from relprop.lrp import LRP


_KEPT = 4


class Answers:
    """Answers questions about models, each of which is opened when it is first asked about."""

    def __init__(self, openers: Mapping[str, Opener], limits: Limits) -> None:
        self._openers, self._limits = openers, limits
        self._subjects: dict[str, Subject] = {}
        self._under: dict[tuple[str, str], LRP] = {}
        self._kept: dict[Explain, tuple[Explanation, Sample]] = {}

    def __call__(self, question: Question) -> Answer:
        """
        Raises:
            Refused, RelpropError: with what is wrong with the question.
        """
        if isinstance(question, About):
            return self._abilities(question.model)
        if isinstance(question, Report):
            return self._report(question.asked)
        return _shown(*self._explained(question), question.scale)

    def open_first(self) -> None:
        """Load the first model, before anybody asks."""
        self._subject(next(iter(self._openers)))

    def _subject(self, name: str) -> Subject:
        if name not in self._subjects:
            self._subjects[name] = self._openers[name]()
        return self._subjects[name]

    def _abilities(self, name: str) -> Abilities:
        from relprop.composites import NAMED

        return Abilities(self._subject(name).reads_text, ("auto", *sorted(NAMED)))

    def _sample(self, asked: Explain) -> Sample:
        subject = self._subject(asked.model)
        if isinstance(asked.given, str):
            return subject.text(asked.given)
        return subject.picture(asked.given.data, asked.given.name, self._limits)

    def _lrp(self, model: str, composite: str) -> LRP:
        """What was captured is shared by all composites."""
        from relprop.composites import NAMED

        if (model, composite) not in self._under:
            lrp = self._subject(model).lrp
            self._under[model, composite] = lrp.using(NAMED[composite]) if composite in NAMED else lrp
        return self._under[model, composite]

    def _explained(self, asked: Explain) -> tuple[Explanation, Sample]:
        """The last few are kept, for other colours and for the report."""
        key = replace(asked, scale="")
        if key not in self._kept:
            sample = self._sample(asked)
            target = self._subject(asked.model).target(asked.target, sample.inputs)
            explanation = self._lrp(asked.model, asked.composite).explain(sample.inputs, target)
            self._kept[key] = explanation, sample
            while len(self._kept) > _KEPT:
                del self._kept[next(iter(self._kept))]
        return self._kept[key]

    def _report(self, asked: Explain) -> bytes:
        from relprop.explanation import report

        explanation, sample = self._explained(asked)
        with tempfile.TemporaryDirectory() as folder:
            path = report(explanation, Path(folder) / "report.html", image=sample.picture, tokens=sample.tokenizer)
            return path.read_bytes()


def _shown(explanation: Explanation, sample: Sample, scale: str) -> Shown:
    from relprop.view.page import part, shades

    sheet = explanation.sheet(0, sample.picture, tokens=sample.tokenizer, percentile=SCALES[scale])
    facts = dict(sheet.facts)
    inks = {colour: ink for text in sheet.texts for colour, ink in text.inks.items()}
    texts = f"<style>{shades(inks)}</style>{part('texts', sheet.texts)}" if sheet.texts else ""
    return Shown(
        rules=facts["rules"],
        guesses=tuple(Guess(g.index, g.name, g.score, _percent(g.probability), g.explained) for g in sheet.guesses),
        photo=sheet.photo,
        maps=part("maps", sheet.maps),
        texts=texts,
        checks=part("checks", sheet.checks),
        books=part("books", sheet.books),
        scale=sheet.scale,
        note=sheet.note,
    )


def _percent(probability: Any) -> str:
    return "" if probability is None else f"{100 * probability:.1f} %"
