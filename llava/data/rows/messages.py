"""Conversations inside one column: lists of messages, and transcripts of Human and Assistant turns."""

from __future__ import annotations

import re
from typing import Any

from llava.errors import InputError
from llava.fields import describe_value

ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}
"""Speakers as the data sets spell them, and the roles of chat templates."""

_MARK = re.compile(r"(?:^|\n\n)(Human|Assistant):")


def split_transcript(text: str, where: object) -> tuple[str, str]:
    r"""Split an hh-rlhf transcript into the last human turn and the assistant's answer to it.

    Example:
        >>> split_transcript("\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Why?\n\nAssistant: Because.", "f line 1")
        ('Why?', 'Because.')
    """
    turns = _split_turns(text)
    if len(turns) < 2 or turns[-1][0] != "Assistant":
        raise InputError(f"{where}: a transcript must end with an Assistant turn behind a Human turn; mend that row")
    humans = [content for speaker, content in turns if speaker == "Human"]
    if not humans:
        raise InputError(f"{where}: a transcript has no Human turn; mend that row")
    return humans[-1].strip(), turns[-1][1].strip()


def is_transcript(text: str) -> bool:
    r"""Tell whether a text begins as a transcript does.

    Example:
        >>> is_transcript("\n\nHuman: Hi\n\nAssistant:"), is_transcript("Humans: a history")
        (True, False)
    """
    return _MARK.match(text.strip()) is not None


def read_last_answer(value: Any, column: str, where: object) -> str:
    r"""Return what the assistant says last in a list of messages or a transcript; a bare text as it is, null as "".

    A transcript begins with a blank line, or somebody answers in it. Some answers in hh-rlhf begin with `Human:`, and
    are answers all the same.

    Raises:
        InputError: When somebody else speaks last, or the value is neither a text nor a list of messages.

    Example:
        >>> read_last_answer("\n\nHuman: How?\n\nAssistant: no", "chosen", "line 1")
        'no'
        >>> read_last_answer("Human: I see.", "chosen", "line 1")
        'Human: I see.'
    """
    if isinstance(value, list):
        messages = read_messages(value, column, where)
        if not messages or messages[-1][0] != "assistant":
            raise InputError(f"{where}: {column} does not end with a message of the assistant; mend that row")
        return messages[-1][1]
    text = _text(value, column, where)
    if not is_transcript(text):
        return text
    turns = _split_turns(text.strip())
    if not text.startswith("\n") and all(speaker != "Assistant" for speaker, _ in turns):
        return text
    speaker, content = turns[-1]
    if speaker != "Assistant":
        raise InputError(f"{where}: {column} is a transcript that ends with a Human turn; mend that row")
    return content.strip()


def read_last_question(value: Any, column: str, where: object) -> str:
    r"""Return what the user asks last in a list of messages or a transcript; a bare text as it is, null as "".

    Raises:
        InputError: When the user says nothing, or the value is neither a text nor a list of messages.

    Example:
        >>> read_last_question("\n\nHuman: How?\n\nAssistant:", "prompt", "line 1")
        'How?'
    """
    if isinstance(value, list):
        asked = [text for role, text in read_messages(value, column, where) if role == "user"]
    else:
        text = _text(value, column, where)
        if not is_transcript(text):
            return text
        asked = [content.strip() for speaker, content in _split_turns(text.strip()) if speaker == "Human"]
    if not asked:
        raise InputError(f"{where}: {column} has no turn of a human; mend that row")
    return asked[-1]


def read_messages(value: list[Any], column: str, where: object) -> list[tuple[str, str]]:
    """Return the role and text of each message of a list.

    Raises:
        InputError: When one is not of the form `{"role", "content"}` or `{"from", "value"}`, or holds no text.

    Example:
        >>> read_messages([{"role": "user", "content": "Hi"}, {"from": "gpt", "value": "Yes?"}], "chosen", "line 1")
        [('user', 'Hi'), ('assistant', 'Yes?')]
    """
    messages = []
    for message in value:
        if not isinstance(message, dict):
            raise InputError(f"{where}: {column} is a list, but not of messages with role and content; mend that row")
        speaker = message.get("role", message.get("from"))
        if not isinstance(speaker, str) or speaker not in ROLES:
            raise InputError(
                f"{where}: a message of {column} has the role {describe_value(speaker)}; known are {', '.join(ROLES)}"
            )
        content = message.get("content", message.get("value"))
        parts = content if isinstance(content, list) else [content]
        found = [part.get("text") if isinstance(part, dict) else part for part in parts]
        texts = [text for text in found if isinstance(text, str)]
        if len(texts) < len(found):
            raise InputError(f"{where}: a message of {column} holds something else than text; mend that row")
        messages.append((ROLES[speaker], "".join(texts)))
    return messages


def _split_turns(text: str) -> list[tuple[str, str]]:
    """Return the speaker and the content of each turn of a transcript."""
    # re.split gives the text before the first mark, then mark and content in turn.
    turns = _MARK.split(text)
    return list(zip(turns[1::2], turns[2::2], strict=True))


def _text(value: Any, column: str, where: object) -> str:
    """Return a text; null counts as empty."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InputError(f"{where}: {column} is {type(value).__name__}, not a text; mend that row")
    return value
