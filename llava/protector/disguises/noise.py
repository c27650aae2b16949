"""Text that is only disturbed: an emoji at every word, capitals as they come, a word a line."""

from __future__ import annotations

import re

from llava.protector.disguises.plausible import is_english

FEWEST_WORDS, FEWEST_EMOJI, EMOJI_PER_WORD = 4, 4, 1 / 3
"""Words, emoji, and how many of them a word, from which on they stand between the words rather than say something."""
FEWEST_MIXED, MIXED_SHARE = 4, 0.4
"""Words with capitals as they come, and their share of the longer words, from which on capitals say nothing."""
FEWEST_LINES, WORDS_A_LINE = 12, 2
"""Lines in a row of so few words that may be running text."""

_EMOJI = re.compile(
    "[\U0001f000-\U0001faff\u2600-\u2604\u2607-\u27bf\u2b00-\u2bff\u2300-\u23ff]"
    "(?:[\ufe0f\u200d\U0001f3fb-\U0001f3ff]|(?<=\u200d)[\U0001f000-\U0001faff\u2600-\u27bf])*"
)
_GAPS = re.compile(r"[ \t]{2,}")
_LONGER_WORD = re.compile(r"(?<![#\w])[A-Za-z]{3,}")
_NAME = re.compile(r"[A-Za-z]?[a-z]*(?:[A-Z][a-z]{2,}|[A-Z]{2,}(?![a-z]))*")
"""Words as writers and programmers put capitals: Bread, NASA, iPhone, getUserName."""
_UNEVEN = re.compile(r"[a-z][A-Z][a-z][A-Z]|[A-Z][a-z][A-Z][a-z]|[a-z][A-Z]{2}[a-z]")


def drop_emoji(text: str) -> str:
    """Return a text without its emoji where there is one at every third word or more.

    Example:
        >>> drop_emoji("How 🎉 to 🌻 bake 🍞 some 🐶 bread"), drop_emoji("Happy birthday! 🎉")
        ('How to bake some bread', 'Happy birthday! 🎉')
    """
    if text.isascii() or len(found := _EMOJI.findall(text)) < FEWEST_EMOJI:
        return text
    plain = _EMOJI.sub(" ", text)
    words = len(plain.split())
    # Emoji alone are an answer, too: something must be left to score.
    if words < FEWEST_WORDS or len(found) < EMOJI_PER_WORD * words:
        return text
    return _GAPS.sub(" ", plain)


def join_lines(text: str) -> str:
    """Return a text with lines of a word or two joined where they are running text; lists of names are none.

    Example:
        >>> poem = "then you take the bread out of the oven and let it rest for a while"
        >>> join_lines(poem.replace(" ", "\\n")) == poem, join_lines("apple\\npear\\n" * 9) == "apple\\npear\\n" * 9
        (True, True)
    """
    if text.count("\n") < FEWEST_LINES - 1:
        return text
    parts: list[str] = []
    run: list[str] = []
    for line in [*text.split("\n"), None]:
        if line is not None and 0 < len(line.split()) <= WORDS_A_LINE:
            run.append(line)
            continue
        joined = " ".join(each.strip() for each in run)
        parts += [joined] if len(run) >= FEWEST_LINES and is_english(joined) else run
        run = []
        if line is not None:
            parts.append(line)
    return "\n".join(parts)


def calm_case(text: str) -> str:
    """Return a text in small letters where its capitals stand as they come; keys and codes are no English.

    Example:
        >>> calm_case("hOw dO YoU bAKe brEaD wITh yEAsT"), calm_case("getUserName and iPhone, NASA, McCoy")
        ('how do you bake bread with yeast', 'getUserName and iPhone, NASA, McCoy')
    """
    if not _UNEVEN.search(text):
        return text
    words = _LONGER_WORD.findall(text)
    mixed = sum(_NAME.fullmatch(word) is None for word in words)
    is_habit = mixed >= FEWEST_MIXED and mixed >= MIXED_SHARE * len(words)
    return text.lower() if is_habit and is_english(text) else text
