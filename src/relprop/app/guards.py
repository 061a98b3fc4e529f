"""What stands before the page: uploads of a limited size, requests to this machine only, and no others from it."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'; object-src 'none'"
)
"""NiceGUI writes its scripts into the page, and compiles its templates there."""
_HEADERS = [
    (b"content-security-policy", _POLICY.encode()),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
]
_FORM = 10_000
"""Bytes that a form has around its file."""


class TooLarge(Exception):
    """More bytes have come than may."""


class Guards:
    """An ASGI middleware."""

    def __init__(self, app: Any, most: int) -> None:
        self._app, self._most = app, most + _FORM

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if not _is_own(dict(scope.get("headers", ())).get(b"origin")):
            await _turn_away(scope["type"], send)
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        came, answered = 0, False

        async def counted() -> Any:
            nonlocal came
            message = await receive()
            came += len(message.get("body", b""))
            if came > self._most:
                raise TooLarge
            return message

        async def guarded(message: Any) -> None:
            nonlocal answered
            if message["type"] == "http.response.start":
                answered = True
                message = {**message, "headers": [*message.get("headers", ()), *_HEADERS]}
            await send(message)

        try:
            told = dict(scope["headers"]).get(b"content-length", b"0")
            if int(told) > self._most:
                raise TooLarge
            await self._app(scope, counted, guarded)
        except (TooLarge, ValueError):
            if answered:
                raise
            await guarded({"type": "http.response.start", "status": 413, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": b"The file is too large.\n"})


def _is_own(origin: bytes | None) -> bool:
    """Whether a request comes from a page of this machine, or from no page at all."""
    return origin is None or urlsplit(origin.decode("latin-1")).hostname in ("127.0.0.1", "localhost")


async def _turn_away(kind: str, send: Any) -> None:
    if kind == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"Not from another site.\n"})
