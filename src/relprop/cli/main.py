"""From what was typed to an exit code."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from .failures import FAILED, INTERRUPTED, USAGE, told

COMMANDS = {
    "explain": "Explain what a model makes of pictures, texts or numbers.",
    "plan": "Show which rule every operation gets, before anything runs.",
    "check": "Look for operations that have no rule.",
    "serve": "Serve a page on this machine, where pictures and texts are explained.",
    "doctor": "Tell what is installed, and what is missing.",
    "compare": "Explain one sample by several composites or targets, side by side.",
    "report": "Make one report of stored explanations.",
    "export": "Save the explanation as a program of its own.",
    "bench": "Measure how long an explanation takes on this machine.",
    "verify": "Compare the digests of a report or stored explanation with what is in it.",
    "rule": "Tell what a rule or composite computes, where it is from, and when to use it.",
}
"""Every command is a function of that name in a file of that name in commands/."""


def main(typed: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        typed: its words; by default those that the process was started with.

    Returns:
        The exit code: 0 fine, 1 failed, 2 wrong usage, 130 interrupted.
    """
    # "-" alone would be taken for an option
    words = ["stdin:" if word == "-" else word for word in (sys.argv[1:] if typed is None else typed)]
    try:
        from cyclopts import CycloptsError
    except ImportError as error:
        return _fail(FAILED, f'the command line needs cyclopts ({error}); run: pip install "relprop[cli]"')
    debug = "--debug" in words
    try:
        with _short_warnings(quiet="--quiet" in words):
            code = _app()(words, exit_on_error=False, print_error=False, result_action="return_value")
            sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except CycloptsError as error:
        return _fail(USAGE, f"{' '.join(str(error).split())} See: relprop {_command_of(words)}--help")
    except KeyboardInterrupt:
        return _fail(INTERRUPTED, "interrupted")
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if debug:
            traceback.print_exc()
        return _fail(*told(error))


def _app() -> Any:
    from cyclopts import App, Parameter

    from relprop import __version__

    app = App(
        name="relprop",
        help="Explain the predictions of PyTorch models by Layer-wise Relevance Propagation.",
        help_epilogue="Exit codes: 0 fine, 1 failed, 2 wrong usage. Files that were written are the last lines.",
        version=__version__,
        default_parameter=Parameter(negative=()),
        suppress_keyboard_interrupt=False,
    )
    for name, what in COMMANDS.items():
        app.command(f"relprop.cli.commands.{name}:{name}", name=name, help=what)
    app.register_install_completion_command()
    return app


def _command_of(words: Sequence[str]) -> str:
    return f"{words[0]} " if words and words[0] in COMMANDS else ""


def _fail(code: int, message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code


@contextmanager
def _short_warnings(quiet: bool) -> Iterator[None]:
    """Warnings of relprop in one line each; what other libraries say of themselves is not for this reader."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if not quiet:
            warnings.filterwarnings("once", category=UserWarning, module=r"relprop(\.|$)|__main__$")

        def show(message: Warning | str, *_: Any, **__: Any) -> None:
            print(f"warning: {' '.join(str(message).split())}", file=sys.stderr)

        warnings.showwarning = show
        yield
