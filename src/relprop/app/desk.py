"""Where jobs queue: one at a time, in the order in which they came, each with a time limit."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from .asked import Answer, Failed, Question
from .subject import Limits, Opener, Refused
from .worker import Worker


class Job:
    """A question on its way."""

    def __init__(self, question: Question) -> None:
        self.question = question
        self.began: float | None = None
        """When it left the queue, by the clock of the event loop."""


class Desk:
    """The queue before one worker. To cancel a job, cancel the task that waits for its answer."""

    def __init__(self, openers: Mapping[str, Opener], limits: Limits) -> None:
        self._openers, self._limits = openers, limits
        self._turn = asyncio.Lock()
        self._jobs: list[Job] = []
        self._worker = Worker(openers, limits)

    def ahead(self, job: Job) -> int:
        """How many jobs come before this one."""
        return self._jobs.index(job) if job in self._jobs else 0

    def ask_now(self, question: Question) -> Answer:
        """Ask before there is a queue."""
        return self._worker.exchange(question)

    async def answer(self, job: Job) -> Answer:
        """Wait for the job's turn, and for its answer.

        Raises:
            Refused: with one sentence, if there is none.
        """
        self._jobs.append(job)
        try:
            async with self._turn:
                job.began = asyncio.get_running_loop().time()
                answer = await self._run(job.question)
        finally:
            self._jobs.remove(job)
        if isinstance(answer, Failed):
            raise Refused(answer.sentence)
        return answer

    async def _run(self, question: Question) -> Answer:
        if not self._worker.is_alive:
            self._replace()
        try:
            async with asyncio.timeout(self._limits.seconds):
                return await self._worker.ask(question)
        except TimeoutError:
            self._replace()
            raise Refused(
                f"Stopped after {self._limits.seconds:g} seconds, which is the limit for a job; a smaller input takes "
                "less, and --seconds allows more."
            ) from None
        except asyncio.CancelledError:
            self._replace()
            raise

    def _replace(self) -> None:
        """Kill the worker; another one starts at once, so that the next job finds it ready."""
        self._worker.kill()
        self._worker = Worker(self._openers, self._limits)

    def close(self) -> None:
        self._worker.kill()
