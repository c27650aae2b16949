"""The gate that every request goes through: its id, key, rate, size and time, and the one line about it."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import secrets
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from starlette.requests import ClientDisconnect

from llava.serve.audit import ACCESS
from llava.serve.context import RequestContext, set_context
from llava.serve.errors import BROKEN, ApiError
from llava.serve.limits import RateLimiter, check_key
from llava.serve.metrics import Metrics
from llava.serve.settings import ServerSettings

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

OPEN_ROUTES = ("/health", "/ready")
"""What whoever watches the server asks without a key."""
PLAIN_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)
GONE = 499
"""Status, for log and counters alone, of a request whose client has gone (nginx's number)."""
METHODS = ("GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH")

logger = logging.getLogger(__name__)


class Gate:
    """ASGI middleware around the whole application; pieces of a stream pass it as they come."""

    def __init__(self, app: ASGIApp, settings: ServerSettings, metrics: Metrics):
        """Stand before `app`."""
        self.app = app
        self.settings = settings
        self.metrics = metrics
        self.limiter = RateLimiter(settings.rate_limit)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it with what stands in its way."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        shown = headers.get("x-request-id", "")
        context = RequestContext(shown if PLAIN_ID.fullmatch(shown) else f"req-{secrets.token_hex(12)}")
        set_context(context)
        visit = Visit(scope, send, context)
        try:
            self._check(scope, headers, context)
            await self.app(scope, self._limit(receive), visit.send)
        except ApiError as error:
            await visit.fail(error)
        except ClientDisconnect:
            visit.status = GONE
        except asyncio.CancelledError:
            visit.status = GONE
            raise
        except Exception:  # a defect must not show its words, which may be somebody else's
            logger.exception("a request failed")
            await visit.fail(ApiError(500, "the server failed at this request", kind=BROKEN, code="internal_error"))
        finally:
            self._note(scope, visit, context)

    def _check(self, scope: Scope, headers: Mapping[str, str], context: RequestContext) -> None:
        """Refuse a request without a key, one too many, or one whose body is said to be too large."""
        if scope["path"] in OPEN_ROUTES:
            return
        address = scope["client"][0] if scope.get("client") else "unknown"
        try:
            context.client = check_key(headers, self.settings.api_keys) or address
            self.limiter.take(context.client)
        except ApiError as error:
            self.metrics.turned_away.labels(error.code).inc()
            raise
        length = headers.get("content-length", "")
        if length.isdigit() and int(length[:20]) > self.settings.max_body_bytes:
            raise self._refuse_size()

    def _limit(self, receive: Receive) -> Receive:
        """Return `receive` with the limits of size and time; a body without a length is counted as it comes."""
        received = 0
        whole = False
        end = time.monotonic() + self.settings.body_timeout

        async def limited() -> Message:
            nonlocal received, whole
            if whole:  # what comes now is the end of the connection, which may take its time
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), max(0.0, end - time.monotonic()))
            except (asyncio.TimeoutError, TimeoutError):  # two classes before Python 3.11
                raise ApiError(408, "the body did not arrive in time", code="body_timeout") from None
            received += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if received > self.settings.max_body_bytes:
                raise self._refuse_size()
            return message

        return limited

    def _refuse_size(self) -> ApiError:
        """Return the error for a body that is too large."""
        self.metrics.turned_away.labels("body").inc()
        return ApiError(
            413, f"the body is larger than {self.settings.max_body_bytes:,} bytes; send less", code="body_too_large"
        )

    def _note(self, scope: Scope, visit: Visit, context: RequestContext) -> None:
        """Count a request and write its line."""
        seconds = time.monotonic() - visit.begun
        method = scope["method"] if scope["method"] in METHODS else "other"
        context.route = find_route(scope)
        self.metrics.requests.labels(context.route, method, str(visit.status)).inc()
        self.metrics.seconds.labels(context.route).observe(seconds)
        fields = {
            "event": "request",
            "client": context.client,
            "method": method,
            "route": context.route,
            "status": visit.status,
            "seconds": round(seconds, 4),
        }
        ACCESS.info("request", extra={"fields": fields})


class Visit:
    """One request's answer on its way out."""

    def __init__(self, scope: Scope, send: Send, context: RequestContext):
        """Begin the clock."""
        self.scope = scope
        self.to_client = send
        self.context = context
        self.begun = time.monotonic()
        self.status = 0
        """As it was sent; 0 before."""

    async def send(self, message: Message) -> None:
        """Pass a message on, the request's id among its headers."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            own = [(b"x-request-id", self.context.id.encode()), (b"x-content-type-options", b"nosniff")]
            message = {**message, "headers": [*message.get("headers", []), *own]}
        await self.to_client(message)

    async def fail(self, error: ApiError) -> None:
        """Answer with an error; an answer that has begun is broken off, so that nobody takes it for a whole one."""
        if self.status:
            raise error
        await send_error(error, self.send)


async def send_error(error: ApiError, send: Send) -> None:
    """Send an error in OpenAI's shape."""
    body = json.dumps(error.to_dict()).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body)), **error.headers}
    pairs: list[tuple[bytes, bytes]] = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})


def find_route(scope: Scope) -> str:
    """Return the path of the route that a request matched, never the request's own."""
    route: Any = scope.get("route")
    return getattr(route, "path", None) or "other"
