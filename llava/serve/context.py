"""What is known of the request under way, for logs and audit lines, wherever in the code they are written."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass
class RequestContext:
    """The request under way."""

    id: str
    """The client's `X-Request-Id`, or one of our own."""
    client: str = "anonymous"
    """Which key the client showed, by its number (`key-1`), never the key; or its address."""
    route: str = "other"
    """The route that was matched, `other` before and without one."""


_current: ContextVar[RequestContext | None] = ContextVar("request", default=None)


def set_context(context: RequestContext) -> None:
    """Make a request the one under way, for this task and what it starts."""
    _current.set(context)


def get_context() -> RequestContext:
    """Return the request under way; one without an id outside of any."""
    return _current.get() or RequestContext("-")
