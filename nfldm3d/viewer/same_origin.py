"""Only pages of the viewer itself talk to it: any other page in the same browser could, too, as viser does not ask.

A browser says in ``Origin`` which page opens a WebSocket (RFC 6455, section 10.2), and in ``Host`` whom it calls.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Names of this machine that no other reaches."""
Answer = Callable[[Any, Any], Any]
"""What a server does with a connection and its request before it is taken: a response, or None to go on."""


@contextmanager
def same_origin_only(listening: str, trusted: Sequence[str] = ()) -> Iterator[None]:
    """Servers that start meanwhile take WebSockets only from their own pages, from programs, and from trusted origins.

    Args:
        listening: their address. At a loopback one, their own pages are those of this machine's names: a foreign name
            may have been made to mean this machine for a moment.
        trusted: such as ``https://hub.example.org``, where a proxy serves the page under another name.
    """
    from websockets.asyncio import server as module

    start = module.serve

    @wraps(start)
    def serve(*arguments: Any, process_request: Answer | None = None, **options: Any) -> Any:
        return start(*arguments, process_request=_guard(process_request, listening, trusted), **options)  # pyright: ignore[reportArgumentType]

    module.serve = serve  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        module.serve = start


def is_own(origin: str | None, host: str | None, listening: str, trusted: Sequence[str] = ()) -> bool:
    """Whether a request comes from a page of the host that it goes to; programs name no origin."""
    if origin is None or origin.rstrip("/").lower() in [one.rstrip("/").lower() for one in trusted]:
        return True
    try:
        called = urlsplit(f"//{host or ''}")
        own = urlsplit(origin).netloc.lower() == called.netloc.lower() != ""
        return own and (listening not in LOOPBACK or called.hostname in LOOPBACK)
    except ValueError:
        return False


def _guard(answer: Answer | None, listening: str, trusted: Sequence[str]) -> Answer:
    def guard(connection: Any, request: Any) -> Any:
        headers = request.headers
        socket = (headers.get("Upgrade") or "").lower() == "websocket"
        if socket and not is_own(headers.get("Origin"), headers.get("Host"), listening, trusted):
            return connection.respond(HTTPStatus.FORBIDDEN, "Pages of other sites cannot use this viewer.\n")
        return None if answer is None else answer(connection, request)

    return guard
