"""Where a growing text may be cut: at places that its characters alone decide, however it came in pieces."""

from __future__ import annotations

import unicodedata

LONGEST_WORD = 16
"""Characters to look for the end of a word; scripts without blanks, and endless words, are cut behind them."""
MOST_MARKS = 64
"""Characters to look for one that stands on its own, behind a cut that would part a letter from its marks."""
JOINED = frozenset({"Mn", "Me", "Mc", "Cf", "Sk"})
"""Categories of characters that belong to the one before: marks, joiners, variation selectors, skin tones."""
JOINER = "\u200d"
"""Joins the character behind it to the one before it."""


def find_border(text: str, place: int) -> int | None:
    """Return the first place from `place` on where the text may be cut; None where what follows must be seen first.

    Args:
        text: The text so far.
        place: Where to look from, at least 1.

    Example:
        >>> find_border("Boil the water.", 2), find_border("Boil the water.", 10), find_border("水" * 40, 3)
        (4, None, 19)
    """
    for at in range(place, min(len(text), place + LONGEST_WORD)):
        if text[at].isspace():
            return at
    last = place + LONGEST_WORD + MOST_MARKS
    for at in range(place + LONGEST_WORD, min(len(text), last + 1)):
        if at == last or stands_alone(text, at):
            return at
    return None


def find_earlier_border(text: str, place: int) -> int:
    """Return the last place before `place` where the text may be cut; 0 when there is none.

    Example:
        >>> find_earlier_border("Boil the water.", 12), find_earlier_border("Boil", 4)
        (8, 0)
        >>> find_earlier_border("水" * 40, 20)
        19
    """
    nearest = place - LONGEST_WORD
    for at in range(place - 1, max(0, nearest), -1):
        if text[at].isspace():
            return at
    if nearest <= 0:
        return 0
    return next((at for at in range(place - 1, nearest, -1) if stands_alone(text, at)), 0)


def stands_alone(text: str, place: int) -> bool:
    r"""Tell whether the character at a place begins anew what a reader sees, rather than adding to the one before.

    Example:
        >>> stands_alone("e\u0301a", 1), stands_alone("e\u0301a", 2)
        (False, True)
    """
    return unicodedata.category(text[place]) not in JOINED and text[place - 1] != JOINER
