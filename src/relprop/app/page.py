"""The page, as each visitor gets it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nicegui import ui

from relprop.view.page import assets

from .asked import Abilities, About, Given, Picture
from .desk import Desk
from .panel import Panel
from .running import Running
from .session import Session
from .subject import Limits

HERE = Path(__file__).parent


def page(desk: Desk, models: list[str], abilities: Abilities, limits: Limits) -> None:
    """Build it for one visitor."""
    _head()
    Page(Session(desk, limits, models[0], abilities), models)


class Page:
    """A model, a sample, and one explanation of it or two."""

    def __init__(self, session: Session, models: list[str]) -> None:
        self._session, self._panels = session, list[Panel]()
        with ui.row().classes("top"):
            ui.label("relprop").classes("brand")
            if len(models) > 1:
                ui.select(models, value=models[0], on_change=lambda e: self._choose(e.value)).props("dense")
            else:
                ui.label(models[0])
        with ui.column().classes("sheet"):
            self._running = Running(session.desk)
            self._sample = ui.row().classes("sample")
            self._side_by_side = ui.row().classes("panels")
        self._begin()

    def _choose(self, model: str) -> None:
        def known(abilities: Abilities) -> None:
            self._session.model, self._session.abilities, self._session.given = model, abilities, None
            self._begin()

        self._running.start(About(model), known)

    def _begin(self) -> None:
        """What a model is given, and no explanation yet."""
        self._sample.clear()
        with self._sample:
            if self._session.abilities.reads_text:
                self._text()
            else:
                self._upload()
        for panel in self._panels:
            panel.cancel()
        self._side_by_side.clear()
        self._panels.clear()

    def _upload(self) -> None:
        most = self._session.limits.bytes
        upload = ui.upload(
            label="Drop a picture here, or press +",
            auto_upload=True,
            max_file_size=most,
            on_rejected=lambda: self._running.say(
                f"The file is refused: pictures of at most {most / 1e6:g} MB are read."
            ),
        ).props('accept="image/*" flat bordered')

        async def take(event: Any) -> None:
            data = await event.file.read()
            upload.reset()
            self._new_sample(Picture(event.file.name, data))

        upload.on_upload(take)

    def _text(self) -> None:
        text = ui.textarea("A text").classes("text").props("outlined autogrow")
        ui.button("Explain", on_click=lambda: self._new_sample(text.value or "")).props("no-caps")

    def _new_sample(self, given: Given) -> None:
        self._running.say("")
        self._session.given = given
        if not self._panels:
            self._add()
        for panel in self._panels:
            panel.new_sample()

    def _add(self) -> None:
        """One more explanation of the same sample; the second one can be closed."""
        is_first = not self._panels
        with self._side_by_side:
            panel = Panel(self._session, self._add if is_first else None, None if is_first else self._close)
        self._panels.append(panel)
        if not is_first:
            panel.explain()

    def _close(self) -> None:
        panel = self._panels.pop()
        panel.cancel()
        panel.root.delete()
        self._panels[0].alone()


def _head() -> None:
    style, script = assets()
    ui.add_head_html(f"<style>{style}{(HERE / 'app.css').read_text(encoding='utf-8')}</style><script>{script}</script>")
