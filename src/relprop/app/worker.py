"""A process that runs models, one question at a time; it can be killed, and another one takes its place."""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
import warnings
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection

from .asked import Answer, Failed, Question
from .subject import Limits, Opener, Refused


class Worker:
    """The process, as the page sees it."""

    def __init__(self, openers: Mapping[str, Opener], limits: Limits) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._end, theirs = spawn.Pipe()
        self._process = spawn.Process(target=_work, args=(theirs, openers, limits), daemon=True, name="relprop-worker")
        self._process.start()
        theirs.close()
        self._thread = ThreadPoolExecutor(1)

    def exchange(self, question: Question) -> Answer:
        """Ask and wait.

        Raises:
            Refused: if the process came to its end meanwhile.
        """
        try:
            self._end.send(question)
            answer: Answer = self._end.recv()
        except (EOFError, OSError) as error:
            raise Refused(
                "The process that runs the model ended without an answer, most likely for want of memory; a smaller "
                "input may help, and the next job starts a new one."
            ) from error
        return answer

    async def ask(self, question: Question) -> Answer:
        """The same without waiting; a task that is cancelled meanwhile has to kill the process."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self.exchange, question)

    @property
    def is_alive(self) -> bool:
        return self._process.is_alive()

    def kill(self) -> None:
        """End it at once, whatever it is doing."""
        self._process.kill()
        self._process.join()
        self._thread.shutdown(wait=False)


def _work(end: Connection, openers: Mapping[str, Opener], limits: Limits) -> None:
    from .answers import Answers
    from .sentence import sentence

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the page, whose end is the end of this
    warnings.simplefilter("ignore")
    answers = Answers(openers, limits)
    with suppress(Exception):  # whoever asks is told what is wrong
        answers.open_first()
    while True:
        try:
            question = end.recv()
        except (EOFError, OSError):
            return
        try:
            answer = answers(question)
        except Exception as error:
            answer = Failed(sentence(error))
        try:
            end.send(answer)
        except OSError:
            return
