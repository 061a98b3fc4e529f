"""The page's own process: it listens on this machine only."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from relprop.extra import extra

from .asked import Abilities, About, Failed
from .desk import Desk
from .guards import Guards
from .subject import Limits, Opener, Refused

HOST = "127.0.0.1"


def serve(openers: Mapping[str, Opener], *, port: int, limits: Limits, show: bool) -> None:
    """Serve the page until it is interrupted.

    Args:
        openers: models by the names under which they are offered; the first one is there at once.
        port: where to listen; 0 takes one that is free.
        limits: of jobs and uploads.
        show: whether to open the page in a browser.

    Raises:
        Refused: if the first model cannot be opened, or the port is taken.
        ImportError: if the extra ``relprop[app]`` is not installed.
    """
    with extra("app", "the page needs nicegui and jinja2"):
        import jinja2  # noqa: F401
        from nicegui import app, ui
        from starlette.middleware.trustedhost import TrustedHostMiddleware

    from .page import page

    port = _free(port)
    with _own_folder(), _closing(Desk(openers, limits)) as desk:
        first = desk.ask_now(About(next(iter(openers))))
        if isinstance(first, Failed):
            raise Refused(first.sentence)
        assert isinstance(first, Abilities)
        app.add_middleware(Guards, most=limits.bytes)
        app.add_middleware(
            TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"]
        )  # no other site under a name of its own
        app.on_startup(lambda: print(f"relprop is at http://{HOST}:{port} (Ctrl-C ends it)", flush=True))

        def root() -> None:
            page(desk, list(openers), first, limits)

        quiet: dict[str, Any] = {"show_welcome_message": False, "reload": False, "tailwind": False, "favicon": _ICON}
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the folder is removed then, too
        with suppress(KeyboardInterrupt):
            ui.run(root, host=HOST, port=port, title="relprop", show=show, **quiet)


_ICON = (
    '<svg viewBox="0 0 16 16" xmlns="http://www.w3.org/2000/svg"><rect width="16" height="16" rx="3" fill="#fff"/>'
    '<circle cx="6" cy="8" r="5" fill="#b3261e"/><circle cx="11" cy="9" r="4" fill="#1f4fbf" opacity=".8"/></svg>'
)


@contextmanager
def _own_folder() -> Iterator[None]:
    """Whatever uploads, reports or matplotlib write goes to one temporary folder, which is gone afterwards."""
    before = {name: os.environ.get(name) for name in ("TMPDIR", "MPLCONFIGDIR")}
    with tempfile.TemporaryDirectory(prefix="relprop-") as folder:
        try:
            os.environ.update(dict.fromkeys(before, folder))  # the worker gets them, too
            tempfile.tempdir = folder
            yield
        finally:
            tempfile.tempdir = None
            for name, value in before.items():
                os.environ.pop(name)
                if value is not None:
                    os.environ[name] = value


@contextmanager
def _closing(desk: Desk) -> Iterator[Desk]:
    try:
        yield desk
    finally:
        desk.close()


def _free(port: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            raise Refused(f"port {port} cannot be listened to ({error}); --port 0 takes one that is free") from error
        found: int = probe.getsockname()[1]
        return found
