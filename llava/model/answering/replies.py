"""The one reader of what an OpenAI-compatible server answers: words of the model, a refusal, or a failure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from llava.errors import to_one_line
from llava.fields import Fields
from llava.files import parse_json

REFUSED_STATUS = {400, 413, 422}
"""The server turns down this very request: its filter, its limits, or a parameter that it does not know."""
RETRY_STATUS = {408, 409, 425, 429}
"""The server is busy, as it is with 500 and above."""
NEVER_STATUS = {501, 505}
"""The server will not learn it however often it is asked."""
ACCESS_STATUS = {401, 403}
FILTER_CODES = {"content_filter", "content_policy_violation", "data_inspection_failed", "moderation_blocked"}
"""What servers call an error that is about the words of the question."""

CUT = {"length", "max_tokens", "model_length"}
"""Reasons to finish: there was no room for more."""
FILTERED = {"content_filter", "safety", "sensitive"}
"""A filter of the server held the answer back."""
FAILED = {"error", "abort", "insufficient_system_resource"}
"""The server gave up in the middle."""
THOUGHT_PARTS = {"thinking", "reasoning", "redacted_thinking", "reasoning_content", "reasoning_text", "thought"}
"""Parts of an answer that the user of a model does not see."""
TEXT_PARTS = {"text", "output_text"}
REFUSAL_PART = "refusal"
READ_PARTS = {*TEXT_PARTS, *THOUGHT_PARTS, REFUSAL_PART}
THOUGHT_FIELDS = ("reasoning_content", "reasoning")
TOOL_FIELDS = ("tool_calls", "function_call")

CUT_SHORT = "cut before the model said anything; raise --max-new-tokens"
THOUGHTS_ALONE = "reasoning alone, with nothing said after it"
TOOL_CALLS = "calls of tools that nobody offered"
MOST_KINDS = 5
"""Types of parts that a message names."""
LONGEST_WORDS = 200
"""Characters of a server's message that ours keep."""


@dataclass(frozen=True)
class Answer:
    """What a server made of one question."""

    text: str
    """The model's words; empty when there are none."""
    refusal: str | None = None
    """Why the question was turned down, in the words of the model or of the server; None when it was not."""
    unanswered: str | None = None
    """What came in place of an answer (`N answers were …`); such a question has no answer to be scored."""
    cut: bool = False
    """Whether the answer ended for want of room."""
    unread: tuple[str, ...] = field(default=(), compare=False)
    """Types of the parts that are neither text nor thoughts, which nothing here reads."""


@dataclass(frozen=True)
class Failure:
    """An answer that is none: the server's own error."""

    words: str
    """What it says."""
    status: int | None = None
    """Status, of HTTP or of the error object in a reply that HTTP calls fine; None where there is none."""
    refused: bool = False
    """Whether it is about this very request."""

    @property
    def busy(self) -> bool:
        """Whether another try makes sense."""
        if self.refused or self.status is None:
            return not self.refused
        return self.status in RETRY_STATUS or (self.status >= 500 and self.status not in NEVER_STATUS)

    def __str__(self) -> str:
        """Return it as one short line."""
        words = " ".join(self.words.split())[:LONGEST_WORDS]
        return words if self.status is None else f"status {self.status}: {words}"


def read_answer(text: str, server: str) -> Answer | Failure:
    """Read the body of a reply whose status is 200.

    Args:
        text: The body.
        server: The server's address, for messages.

    Raises:
        InputError: When it is no reply of this protocol.
    """
    where = f"endpoint {server} does not speak the OpenAI protocol: its reply"
    remedy = "check the address"
    body = Fields(parse_json(text, where, remedy), where, remedy)
    if (failure := _find_error(body)) is not None:
        return failure
    choices = body.items("choices")
    if not choices:
        return Failure("it gave no choice, as filters do", refused=True)
    choice = Fields(choices[0], f"{where}, its first choice,", remedy)
    if choice.values.get("error"):
        return _to_failure(choice.values["error"])
    return _read_choice(choice)


def _read_choice(choice: Fields) -> Answer | Failure:
    """Read one choice of a completion."""
    message = choice.inner("message")
    finish = (choice.text("finish_reason", None) or "").lower()
    if finish in FAILED:
        return Failure(f"the answer ended with '{finish}'")
    text, refusal, kinds = _read_content(message)
    unread = tuple(kind for kind in kinds if kind not in READ_PARTS)
    if text:
        return Answer(text, cut=finish in CUT, unread=unread)
    if refusal:
        return Answer("", refusal)
    if finish in FILTERED:
        return Failure("its filter held the answer back", refused=True)
    unanswered = None
    if finish in CUT:
        unanswered = CUT_SHORT
    elif any(message.values.get(name) for name in TOOL_FIELDS):
        unanswered = TOOL_CALLS
    elif unread:
        unanswered = f"without text, only of the type {', '.join(unread[:MOST_KINDS])}"
    elif any(message.values.get(name) for name in THOUGHT_FIELDS) or THOUGHT_PARTS.intersection(kinds):
        unanswered = THOUGHTS_ALONE
    return Answer("", unanswered=unanswered, cut=finish in CUT, unread=unread)


def _read_content(message: Fields) -> tuple[str, str, tuple[str, ...]]:
    """Return a message's text, the words of its refusal, and the types of its parts, each once."""
    refusal = message.text("refusal", None) or ""
    if not isinstance(message.values.get("content"), list):
        return (message.text("content", None) or "").strip(), refusal.strip(), ()
    texts: list[str] = []
    kinds: list[str] = []
    for part in message.items("content"):
        if isinstance(part, str):
            texts.append(part)
            continue
        fields = Fields(part, f"{message.where}, a part of 'content',", message.remedy)
        kind = fields.text("type")
        kinds.append(kind)
        if kind in TEXT_PARTS:
            texts.append(fields.text("text"))
        elif kind == REFUSAL_PART:
            refusal += fields.text("refusal")
    return "".join(texts).strip(), refusal.strip(), tuple(to_one_line(kind)[:40] for kind in dict.fromkeys(kinds))


def read_failure(status: int, text: str) -> Failure:
    """Read the body of a reply whose status is not 200; it may be of any form."""
    try:
        body = parse_json(text, "reply")
    except ValueError:
        return Failure(text, status, status in REFUSED_STATUS)
    error = body.get("error") or body if isinstance(body, dict) else body
    return Failure(_find_words(error), status, status in REFUSED_STATUS)


def _find_error(body: Fields) -> Failure | None:
    """Return the failure that a reply with status 200 reports; None when it has choices and no error."""
    if body.values.get("error"):
        return _to_failure(body.values["error"])
    if body.values.get("object") == "error" or ("choices" not in body and _find_message(body.values)):
        return _to_failure(body.values)
    return None


def _to_failure(error: Any) -> Failure:
    """Return an error object of a reply as a failure: its code stands for a status, else it is tried again."""
    code = error.get("code") if isinstance(error, dict) else None
    if str(code).lower() in FILTER_CODES:
        return Failure(_find_words(error), refused=True)
    if isinstance(code, str) and code.isdecimal() and len(code) == 3:
        code = int(code)
    if isinstance(code, int) and not isinstance(code, bool) and 400 <= code < 600:
        return Failure(_find_words(error), code, code in REFUSED_STATUS)
    return Failure(_find_words(error))


def _find_words(error: Any) -> str:
    """Return what an error says: its message, beside it the parameter that it is about."""
    if not isinstance(error, dict):
        return str(error)
    words = _find_message(error) or str(error)
    parameter = error.get("param")
    return f"{words} (parameter {parameter})" if isinstance(parameter, str) and parameter not in words else words


def _find_message(error: Any) -> str:
    """Return the message of an error object, which servers call by several names; empty when there is none."""
    for name in ("message", "detail", "msg"):
        if isinstance(error.get(name), str) and error[name].strip():
            return str(error[name])
    return ""
