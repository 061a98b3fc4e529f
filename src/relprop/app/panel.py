"""One explanation on the page: which rules, which class, which colours, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable

from nicegui import ui

from .asked import SCALES, Explain, Guess, Report, Shown
from .running import Running
from .session import Session


class Panel:
    """Controls, and the explanation that they ask for."""

    def __init__(self, session: Session, add: Callable[[], None] | None, close: Callable[[], None] | None) -> None:
        self._session = session
        self._target: int | str | None = None
        with ui.column().classes("panel") as self.root:
            with ui.row().classes("controls"):
                rules = list(session.abilities.composites)
                self._composite = ui.select(rules, value="auto", label="Rules", on_change=self.explain)
                self._scale = ui.select(
                    list(SCALES), value=next(iter(SCALES)), label="Colours end", on_change=self.explain
                )
                self._class = ui.input("Class, by name or number").on("keydown.enter", self._typed)
                self._beside = None
                if add is not None:
                    self._beside = ui.button("Compare", icon="add", on_click=lambda: self._compare(add))
                    self._beside.props("outline no-caps")
                if close is not None:
                    ui.button(icon="close", on_click=close).props('flat round dense aria-label="Close"')
            self._running = Running(session.desk)
            self._result = ui.column().classes("result")

    def _compare(self, add: Callable[[], None]) -> None:
        assert self._beside is not None
        self._beside.visible = False
        add()

    def alone(self) -> None:
        """Another one can be put beside it again."""
        if self._beside is not None:
            self._beside.visible = True

    def new_sample(self) -> None:
        """Another sample: its predicted class is explained."""
        self._target, self._class.value = None, ""
        self._result.clear()
        self.explain()

    def explain(self) -> None:
        """Ask for what the controls say."""
        if self._session.given is not None:
            self._running.start(self._asked(), self._show)

    def cancel(self) -> None:
        self._running.cancel()

    def _asked(self) -> Explain:
        given = self._session.given
        assert given is not None
        return Explain(self._session.model, given, self._composite.value, self._target, self._scale.value)

    def _typed(self) -> None:
        word = self._class.value.strip()
        self._choose(int(word) if word.removeprefix("-").isdecimal() else word or None)

    def _choose(self, target: int | str | None) -> None:
        self._target = target
        self.explain()

    def _download(self) -> None:
        self._running.start(Report(self._asked()), lambda page: ui.download.content(page, "report.html"))

    def _show(self, shown: Shown) -> None:
        self._result.clear()
        with self._result:
            with ui.row().classes("head"):
                if shown.photo:
                    ui.html(f'<img src="{shown.photo}" alt="The input, as the model sees it">', sanitize=False).classes(
                        "photo"
                    )
                with ui.column().classes("guesses"):
                    for guess in shown.guesses:
                        self._guess(guess)
            _part(shown.maps)
            _part(shown.texts)
            ui.label(f"{shown.scale} {shown.note}".strip()).classes("muted")
            for title, content in (("Where relevance went", shown.books), ("Is it sound?", shown.checks)):
                with ui.expansion(title).classes("more"):
                    _part(content)
            with ui.row().classes("foot"):
                ui.label(shown.rules).classes("muted")
                ui.button("Download report", icon="download", on_click=self._download).props("outline no-caps")

    def _guess(self, guess: Guess) -> None:
        button = ui.element("button").classes("guess").on("click", lambda: self._choose(guess.index))
        with button.props(f'type="button" aria-pressed="{"true" if guess.explained else "false"}"'):
            ui.label(guess.name).classes("name")
            ui.label(guess.share).classes("share")


def _part(content: str) -> None:
    """A piece of a report. It is made by a template that escapes whatever comes from a model or a user."""
    if content:
        ui.html(content, sanitize=False).classes("relprop")
