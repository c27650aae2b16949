"""Conversations that others send to be checked: each turn's text, and the question that it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llava.errors import InputError
from llava.fields import Fields
from llava.serve.reading import REMEDY, list_items

ASSISTANT = "assistant"
TEXT_PARTS = ("text", "input_text", "output_text")
SAID_FIELDS = ("content", "reasoning_content", "reasoning", "refusal")
"""Fields of a message that hold what somebody says."""


@dataclass(frozen=True)
class Turn:
    """One text of a conversation."""

    role: str
    """Who says it."""
    text: str
    """What."""
    prompt: str
    """What the user had said before, where a model says it; else empty."""


@dataclass(frozen=True)
class Conversation:
    """What a conversation holds for the guard."""

    turns: list[Turn]
    """All turns with words, tool calls among them, in order."""
    unseen: list[str]
    """Kinds of content that the guard does not read: `image`, `audio`."""

    @property
    def prompt(self) -> str:
        """What the user said last; what comes next answers it."""
        return find_prompt(self.turns, len(self.turns))


def read_conversation(messages: list[Any], where: str) -> Conversation:
    """Take messages in OpenAI's form apart.

    Consecutive messages of one user are one question: who asks in two halves asks the whole.

    Args:
        messages: As they came.
        where: For messages about what is wrong.

    Raises:
        InputError: When one is no message.
    """
    said: list[tuple[str, str]] = []
    unseen: list[str] = []
    for place, message in enumerate(messages):
        fields = Fields(message, f"{where}[{place}]", REMEDY)
        role = fields.text("role")
        for name in SAID_FIELDS:
            texts, kinds = read_content(fields, name)
            said += [(role, text) for text in texts]
            unseen += kinds
        said += [(role, text) for text in read_calls(list_items(fields, "tool_calls"), fields.where)]
        if fields.values.get("function_call") is not None:
            said.append((role, read_call(Fields(fields.values["function_call"], fields.where, REMEDY))))
    turns = [Turn(role, text, "") for role, text in said if text.strip()]
    asked = [
        Turn(turn.role, turn.text, find_prompt(turns, place) if turn.role == ASSISTANT else "")
        for place, turn in enumerate(turns)
    ]
    return Conversation(asked, sorted(set(unseen)))


def find_prompt(turns: list[Turn], end: int) -> str:
    """Return what the user said last before a turn: the whole of consecutive messages."""
    texts: list[str] = []
    for turn in reversed(turns[:end]):
        if turn.role == "user":
            texts.append(turn.text)
        elif texts:
            break
    return "\n".join(reversed(texts))


def read_content(fields: Fields, name: str) -> tuple[list[str], list[str]]:
    """Return the texts of a field of a message, and what kinds of parts it has that are no text.

    Several parts of text are read together: who splits a text says the whole of it.

    Raises:
        InputError: When it is neither a text nor a list of parts.
    """
    value = fields.values.get(name)
    if value is None:
        return [], []
    if isinstance(value, str):
        return [value], []
    if not isinstance(value, list):
        raise fields.refuse(name, "a text or a list of parts")
    texts, kinds = [], []
    for place, part in enumerate(value):
        if isinstance(part, str):
            texts.append(part)
            continue
        inner = Fields(part, f"{fields.where}, '{name}'[{place}]", REMEDY)
        kind = inner.text("type")
        if kind in TEXT_PARTS:
            texts.append(inner.text("text"))
        else:
            kinds.append(name_kind(kind))
    return (["\n".join(texts)] if texts else []), kinds


def name_kind(kind: str) -> str:
    """Return what a part of a message is called in answers and logs; never a word that came with the request.

    Example:
        >>> name_kind("image_url"), name_kind("input_audio"), name_kind("my secret")
        ('image', 'audio', 'other')
    """
    return next((known for known in ("image", "audio", "video", "file") if known in kind.lower()), "other")


def read_calls(calls: list[Any], where: str) -> list[str]:
    """Return the texts of calls of tools: their names and arguments.

    Raises:
        InputError: When one is no call.
    """
    texts = []
    for place, call in enumerate(calls):
        fields = Fields(call, f"{where}, 'tool_calls'[{place}]", REMEDY)
        inner = fields.mapping("function", None) or fields.mapping("custom", None)
        if inner is None:
            raise InputError(f"{fields.where} has no 'function'; {REMEDY}")
        texts.append(read_call(Fields(inner, fields.where, REMEDY)))
    return texts


def read_call(fields: Fields) -> str:
    """Return what a call says: name and arguments."""
    said = [fields.text("name", None), fields.text("arguments", None), fields.text("input", None)]
    return " ".join(text for text in said if text)
