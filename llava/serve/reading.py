"""Reading requests strictly: whatever is wrong with one is a clean answer and never a failure of the server."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llava.errors import InputError
from llava.fields import Fields
from llava.files import parse_json
from llava.protector.guards.base import check_threshold
from llava.serve.errors import ApiError
from llava.serve.settings import ServerSettings

if TYPE_CHECKING:
    from starlette.requests import Request

THRESHOLD_HEADER = "X-Guard-Threshold"
UNSEEN_HEADER = "X-Guard-Not-Inspected"
"""Header of an answer that names what came with the request and was not looked at."""
LONG_BODY = 1 << 18
"""Bytes of a body that is read in a thread of its own, so that the others need not wait."""
REMEDY = "mend the request"


async def read_body(request: Request) -> Fields:
    """Return the body of a request, a JSON object, as fields.

    Raises:
        ApiError: 415 when it says to be something else than JSON.
        InputError: When it is no JSON object.
    """
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    # A page in a browser may send other types to any server without asking it first.
    if kind != "application/json" and not kind.endswith("+json"):
        raise ApiError(415, "the body must be JSON; send 'Content-Type: application/json'", code="not_json")
    body = await request.body()
    parse = parse_body if len(body) < LONG_BODY else None
    return Fields(parse(body) if parse else await asyncio.to_thread(parse_body, body), "the body", REMEDY)


def parse_body(body: bytes) -> Any:
    """Return the JSON value of a body.

    Raises:
        InputError: When it is none.
    """
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"the body is not UTF-8; {REMEDY}") from None
    return parse_json(text, "the body", REMEDY)


def read_threshold(headers: Mapping[str, str], settings: ServerSettings) -> float | None:
    """Return the threshold that a request asks for; None without one.

    Raises:
        ApiError: 403 when requests may not ask for one, 400 when it is none.
    """
    text = headers.get(THRESHOLD_HEADER.lower())
    if text is None:
        return None
    if not settings.allow_header_threshold:
        raise ApiError(
            403, f"{THRESHOLD_HEADER} is not allowed on this server; leave it out", code="threshold_not_allowed"
        )
    try:
        return check_threshold(float(text), THRESHOLD_HEADER)
    except ValueError:  # InputError is one
        raise ApiError(
            400, f"{THRESHOLD_HEADER} must be a number above 0 and at most 1", param=THRESHOLD_HEADER
        ) from None


def list_items(fields: Fields, name: str) -> list[Any]:
    """Return a list that may be absent or null, which is an empty one.

    Raises:
        InputError: When the field is something else.
    """
    found: list[Any] | None = fields.items(name, None)
    return found or []


def check_count(texts: Sequence[Any], most: int) -> None:
    """Refuse a request of more texts than the server takes.

    Raises:
        ApiError: 413 when there are more.
    """
    if len(texts) > most:
        raise ApiError(413, f"{len(texts)} texts in one request, at most {most} are taken", code="too_many_texts")


def name_unseen(unseen: Sequence[str]) -> dict[str, str]:
    """Return the header that says what was not looked at; none where there is nothing to say."""
    return {UNSEEN_HEADER: ", ".join(sorted(set(unseen)))} if unseen else {}


def to_json_score(score: float | None) -> float:
    """Return a score as routes give it that have no word for "unknown": 1, the harmful end.

    Example:
        >>> to_json_score(0.25), to_json_score(None), to_json_score(math.nan)
        (0.25, 1.0, 1.0)
    """
    return 1.0 if score is None or math.isnan(score) else score
