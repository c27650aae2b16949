"""Server-sent events: reading them from a stream of bytes cut anywhere, and writing them."""

from __future__ import annotations

import json
import re
from typing import Any

MOST_EVENT_BYTES = 8 << 20
"""Size of one event at most; a piece of an answer has some hundred bytes."""
DONE = "[DONE]"
"""Data of the last event of OpenAI's streams."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
LINE_END = re.compile(rb"\r\n|\n|\r")


class LongEventError(ValueError):
    """An event that never ends."""


class EventParser:
    r"""Reads server-sent events as their specification says (WHATWG HTML, section 9.2), whatever the chunks.

    Lines end with LF, CR or CRLF, and a chunk may end inside any of them, or inside a character. Comments and fields
    other than `data` are passed over; several lines of data are one text with line breaks.

    Example:
        >>> parser = EventParser()
        >>> parser.feed(b": hello\r\ndata: on"), parser.feed(b"e\r"), parser.feed(b"\ndata:two\n\ndata: 3")
        ([], [], ['one\ntwo'])
        >>> parser.finish()
        ['3']
    """

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[str] = []
        self._size = 0
        self._after_return = False
        self._at_start = True

    def feed(self, chunk: bytes) -> list[str]:
        """Take the next bytes and return the data of every event that is complete.

        Raises:
            LongEventError: When an event is longer than `MOST_EVENT_BYTES`.
        """
        if not chunk:
            return []
        if self._after_return:
            # The second half of a CRLF that was cut in two ends no line of its own.
            chunk = chunk.removeprefix(b"\n")
            self._after_return = False
        self._rest += chunk
        if self._at_start and not self._drop_mark():
            return []
        self._after_return = self._rest.endswith(b"\r")
        *lines, self._rest = LINE_END.split(self._rest)
        events: list[str] = []
        for line in lines:
            self._read_line(line, events)
        if len(self._rest) + self._size > MOST_EVENT_BYTES:
            raise LongEventError(f"an event of more than {MOST_EVENT_BYTES >> 20} MiB")
        return events

    def finish(self) -> list[str]:
        """Return the data of a last event that no blank line ended, as some servers leave it."""
        events: list[str] = []
        if self._rest:
            self._read_line(self._rest, events)
            self._rest = b""
        self._read_line(b"", events)
        return events

    def _drop_mark(self) -> bool:
        """Drop a byte order mark at the start; False while there are too few bytes to tell."""
        if len(self._rest) < len(BYTE_ORDER_MARK) and BYTE_ORDER_MARK.startswith(self._rest):
            return False
        self._rest = self._rest.removeprefix(BYTE_ORDER_MARK)
        self._at_start = False
        return True

    def _read_line(self, line: bytes, events: list[str]) -> None:
        """Take one line; an empty one ends the event."""
        if not line:
            if self._data:
                events.append("\n".join(self._data))
            self._data, self._size = [], 0
            return
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" ").decode("utf-8", "replace"))
            self._size += len(value)


def render_event(content: Any) -> bytes:
    """Return one event: a text as it is, anything else as JSON on one line.

    Example:
        >>> render_event({"a": "ä"}), render_event(DONE)
        (b'data: {"a":"\\xc3\\xa4"}\\n\\n', b'data: [DONE]\\n\\n')
    """
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return f"data: {text}\n\n".encode("utf-8", "replace")
