"""What the server answers when it does not answer: every error in OpenAI's shape."""

from __future__ import annotations

from typing import Any

from llava.errors import to_one_line

INVALID, ACCESS, BUSY, BROKEN = "invalid_request_error", "authentication_error", "rate_limit_error", "server_error"
"""Values of an error's `type`, as OpenAI's clients know them."""


class ApiError(Exception):
    """An error that becomes the answer to a request; its message is shown to the client and never logged."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = INVALID,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ):
        """Keep what the client is told.

        Args:
            status: HTTP status.
            message: One line: what is wrong and what to do.
            kind: The error's `type`.
            param: The field that is wrong, where it is one.
            code: Machine-readable name of the error.
            headers: Headers of the answer, such as `Retry-After`.
        """
        super().__init__(to_one_line(message))
        self.status = status
        self.kind = kind
        self.param = param
        self.code = code
        self.headers = headers or {}

    def to_dict(self) -> dict[str, Any]:
        """Return the body: `{"error": {message, type, param, code}}`.

        Example:
            >>> ApiError(404, "no such route", code="not_found").to_dict()["error"]["code"]
            'not_found'
        """
        return {"error": {"message": str(self), "type": self.kind, "param": self.param, "code": self.code}}


class BusyError(ApiError):
    """More than the server takes at a time; the client may come back after `Retry-After` seconds."""

    def __init__(self, message: str, seconds: float, code: str = "overloaded"):
        """Say after how many seconds to come back."""
        super().__init__(
            429, message, kind=BUSY, code=code, headers={"Retry-After": str(max(1, min(3600, round(seconds))))}
        )


class GuardTimeoutError(Exception):
    """A part of the guard that did not answer in time."""


class GuardStoppedError(Exception):
    """A guard that takes no more work: the server is ending."""


class OverloadedError(Exception):
    """A text that was not looked at because too many others wait; under `fail_open` it passes, named by this."""
