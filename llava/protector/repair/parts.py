"""Where an answer can be cut: sentences, list items, lines and code blocks, which together are the whole text."""

from __future__ import annotations

import re
from typing import NamedTuple

from llava.protector.streaming.borders import find_border

LONGEST = 400
"""Characters of a part; a text without punctuation, or a sentence of pages, is cut between words behind so many."""
FENCE = re.compile(r"[ \t]*(`{3,}|~{3,})")
MARKER = re.compile(r"[ \t]*(?:[-*+•–>#]+|[*_]*\(?(?:\d{1,3}|[A-Za-z]|[ivx]{2,4})[.):])(?=\s)[ \t]*")
"""What stands before the words of a list item, a heading or a quotation."""
END = re.compile(r"(?:(?<![.!?…])[.!?…]+[\"'”’»)\]*_]*(?=\s)|[。！？｡؟۔।॥]+[\"'”’»」』）)\]*_]*)\s*")
"""The end of a sentence, with the blanks behind it. In scripts that put no blank between sentences there is none. It is
looked for from the first of several signs on, so that the time stays linear however many there are."""
SHORT = re.compile(r"(?:\b(?:Mr|Mrs|Ms|Dr|Prof|St|vs|No|e\.g|i\.e|cf|approx)|\b[A-Z])\.\s*$")
"""Words whose point ends no sentence, initials among them."""


class Part(NamedTuple):
    """A piece of a text that is kept or cut as a whole."""

    start: int
    """Where it begins, in characters."""
    end: int
    """Where it ends; the next part begins there."""


def cut_parts(text: str) -> list[Part]:
    r"""Cut a text into sentences, list items, lines and fenced code blocks.

    Blanks, empty lines and lone signs belong to the part before them, a list's numbers to their item. Time is linear in
    the length.

    Args:
        text: Any text.

    Returns:
        Parts in order, without gaps: put together they are the text. Each but the last has a letter or a digit, and is
        at most some `LONGEST` characters long unless it is a code block.

    Example:
        >>> text = "Boil it. Wait!\n1. Salt\n2. Serve e.g. warm"
        >>> [text[start:end] for start, end in cut_parts(text)]
        ['Boil it. ', 'Wait!\n', '1. Salt\n', '2. Serve e.g. warm']
    """
    ends = [end for start, stop in cut_blocks(text) for end in find_ends(text, start, stop)]
    parts: list[Part] = []
    start = last = 0
    for end in ends:
        if has_letters(text, last, end):
            parts.append(Part(start, end))
            start = end
        elif parts:  # signs alone
            parts[-1] = Part(parts[-1].start, end)
            start = end
        last = end
    if start < len(text):
        parts.append(Part(start, len(text)))
    return parts


def cut_blocks(text: str) -> list[tuple[int, int]]:
    """Return where lines and fenced code blocks begin and end; a block that is not closed goes on to the end.

    Example:
        >>> cut_blocks("So:\\n```\\nx = 1\\n```\\nDone")
        [(0, 4), (4, 18), (18, 22)]
    """
    blocks, start, place, fence = [], 0, 0, ""
    for line in text.splitlines(keepends=True):
        place += len(line)
        found = FENCE.match(line)
        if fence:
            if not (found and found[1].startswith(fence)):
                continue
            fence = ""
        elif found:
            fence = found[1]
            continue
        blocks.append((start, place))
        start = place
    return [*blocks, (start, len(text))] if start < len(text) else blocks


def find_ends(text: str, start: int, stop: int) -> list[int]:
    """Return where the parts of a line end, or of a code block, which has one; signs without a letter may be one."""
    if FENCE.match(text, start, stop):
        return [stop]
    marker = MARKER.match(text, start, stop)
    ends, begun = [], marker.end() if marker else start
    for found in END.finditer(text, begun, stop):
        if not SHORT.search(text, max(begun, found.start() - 8), found.end()):
            ends += find_long_ends(text, begun, found.end())
            begun = found.end()
    return ends + (find_long_ends(text, begun, stop) if begun < stop else [])


def find_long_ends(text: str, start: int, stop: int) -> list[int]:
    """Return where the pieces of a sentence end: one, unless it is longer than `LONGEST`."""
    ends = []
    while stop - start > LONGEST:
        border = find_border(text[start : start + 2 * LONGEST], LONGEST)
        if border is None or start + border >= stop:
            break
        start += border
        ends.append(start)
    return [*ends, stop]


def has_letters(text: str, start: int, end: int) -> bool:
    """Tell whether a piece of a text has a letter or a digit of its own, a list's number not among them."""
    marker = MARKER.match(text, start, end)
    return any(map(str.isalnum, text[marker.end() if marker else start : end]))
