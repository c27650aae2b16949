"""Who is let in, and how often: API keys and token buckets."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

from llava.serve.errors import ACCESS, ApiError, BusyError

MOST_CLIENTS = 10_000
"""Buckets that are kept; the client that has been silent longest is forgotten first."""


def check_key(headers: Mapping[str, str], keys: Sequence[str]) -> str | None:
    """Return which key a request shows, as `key-NUMBER`; None where the server has no keys.

    The key stands in `Authorization: Bearer KEY` or in `x-api-key`. Every key is compared, each in constant time, so
    that the time of the answer says nothing about them.

    Raises:
        ApiError: 401 when no key is shown, or none that is known.

    Example:
        >>> check_key({"authorization": "Bearer two"}, ["one", "two"]), check_key({}, [])
        ('key-2', None)
    """
    if not keys:
        return None
    scheme, _, shown = headers.get("authorization", "").partition(" ")
    shown = shown.strip() if scheme.lower() == "bearer" else ""
    digest = hashlib.sha256((shown or headers.get("x-api-key", "").strip()).encode("utf-8", "replace")).digest()
    matches = [hmac.compare_digest(digest, hashlib.sha256(key.encode()).digest()) for key in keys]
    if not any(matches):
        raise ApiError(
            401,
            "no valid API key; send one as 'Authorization: Bearer KEY' or 'x-api-key: KEY'",
            kind=ACCESS,
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )
    return f"key-{matches.index(True) + 1}"


class RateLimiter:
    """A token bucket for each client: so many requests a minute, as many of them at once."""

    def __init__(self, per_minute: float | None, clock: Callable[[], float] = time.monotonic):
        """Set the limit; None sets none."""
        self.per_minute = per_minute
        self.clock = clock
        self.buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str) -> None:
        """Count a request of a client.

        Raises:
            BusyError: When it has made too many.

        Example:
            >>> limiter = RateLimiter(1, clock=lambda: 0.0)
            >>> limiter.take("key-1")
            >>> limiter.take("key-1")
            Traceback (most recent call last):
            llava.serve.errors.BusyError: more than 1 requests a minute; come back in 60 s
        """
        if self.per_minute is None:
            return
        now, capacity = self.clock(), max(1.0, self.per_minute)
        tokens, then = self.buckets.pop(client, (capacity, now))
        tokens = min(capacity, tokens + (now - then) * self.per_minute / 60)
        self.buckets[client] = (tokens - 1 if tokens >= 1 else tokens, now)
        while len(self.buckets) > MOST_CLIENTS:
            self.buckets.popitem(last=False)
        if tokens < 1:
            seconds = (1 - tokens) * 60 / self.per_minute
            raise BusyError(
                f"more than {self.per_minute:g} requests a minute; come back in {seconds:.0f} s",
                seconds,
                code="rate_limit_exceeded",
            )
