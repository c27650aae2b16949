"""What becomes of a response that does not pass: the results of refusing and withholding, and failures as data."""

from __future__ import annotations

from typing import Any

from llava.constants import REFUSAL, WITHHELD
from llava.data.schema import Action, GuardFailure, GuardResult
from llava.errors import to_one_line

DETECTOR, DETOXIFIER = "detector", "detoxifier"
"""The parts of a protector, as failures name them."""


def refuse(reason: str | None, failure: GuardFailure | None = None) -> GuardResult:
    """Return the result of a flagged response that the fixed refusal stands for; text and score are filled in later."""
    return GuardResult(REFUSAL, "", None, True, Action.REFUSED, reason, failure)


def withhold(response: Any, failure: GuardFailure | None) -> GuardResult:
    """Return the result of a response without a score."""
    if not isinstance(response, str):
        reason, failure = f"response is no text but {type(response).__name__}", None
    elif not response.strip():
        reason, failure = "empty response", None
    else:
        reason = f"{failure.part} failed: {failure.error}" if failure else "no finite harm score"
    return GuardResult(WITHHELD, response, None, True, Action.WITHHELD, reason, failure)


def describe_failure(part: str, error: Exception) -> GuardFailure:
    """Return an error of a part as data; an error whose words cannot be had is known by its type."""
    try:
        message = to_one_line(str(error))
    except Exception:  # noqa: BLE001 - nothing that a part brings along may stop the protector
        message = ""
    return GuardFailure(part, type(error).__name__, message)


def has_words(text: Any) -> bool:
    """Tell whether `text` is a text that holds more than blanks."""
    return isinstance(text, str) and bool(text.strip())


def as_text(prompt: Any) -> str:
    """Return a prompt, or an empty one where it is no text: the response is judged all the same."""
    return prompt if isinstance(prompt, str) else ""
