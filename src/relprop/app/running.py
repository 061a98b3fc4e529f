"""A job as a visitor sees it: waiting, running, cancelled, or what it says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from nicegui import background_tasks, ui

from .asked import Answer, Question
from .desk import Desk, Job
from .subject import Refused


class Running:
    """A line that tells how a job is getting on, with a button that cancels it, and one sentence if it fails."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._job: Job | None = None
        self._task: asyncio.Task[Any] | None = None
        with ui.row().classes("running") as self._line:
            ui.spinner(size="1.4rem")
            self._told = ui.label()
            ui.button("Cancel", on_click=self.cancel).props("flat dense no-caps")
        self._sentence = ui.label().classes("sentence").props('role="alert"')
        self._line.visible = self._sentence.visible = False
        self._timer = ui.timer(0.3, self._tick, active=False)
        ui.context.client.on_delete(self.cancel)

    def start(self, question: Question, then: Callable[[Any], None]) -> None:
        """Ask; what is still running for this visitor here gives way."""
        self.cancel()
        self._job = Job(question)
        self._line.visible, self._sentence.visible, self._timer.active = True, False, True
        self._tick()
        self._task = background_tasks.create(self._wait(self._job, then))

    def say(self, sentence: str) -> None:
        """One sentence, where that of a failed job would stand."""
        self._sentence.text, self._sentence.visible = sentence, bool(sentence)

    def cancel(self) -> None:
        """Stop the job, wherever it is."""
        if self._task is not None and not self._task.done():
            self._task.cancel()

    async def _wait(self, job: Job, then: Callable[[Any], None]) -> None:
        sentence, answer = "", None
        try:
            answer: Answer | None = await self._desk.answer(job)  # type: ignore[no-redef]
        except Refused as error:
            sentence = str(error)
        except asyncio.CancelledError:
            sentence = "Cancelled."
        if job is not self._job:  # another one has taken its place
            return
        self._line.visible = self._timer.active = False
        self.say(sentence)
        if answer is not None:
            with self._line.parent_slot:
                then(answer)

    def _tick(self) -> None:
        if self._job is None:
            return
        before, began = self._desk.ahead(self._job), self._job.began
        if began is None:
            self._told.text = (
                f"Waiting: {before} {'job' if before == 1 else 'jobs'} before this one" if before else "Waiting"
            )
        else:
            self._told.text = f"Explaining, {asyncio.get_running_loop().time() - began:.0f} s"
