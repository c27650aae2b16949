"""Does a string look like text that somebody wrote, and how much like English?"""

from __future__ import annotations

import re

_COMMON = """
a about after all also an and any are as at be because been before but by can could do does during each even every
first for from get give go had has have he her here him his how i if in into is it its just know like make may me
more most my need new no not now of on one only or other our out over own people please she should so some such
sure take than that the their them then there these they this those through time to two up us use using want was
way we well were what when where which while who will with without work would you your
"""
COMMON = frozenset(_COMMON.split())
"""Words of which every English text has many, whatever it is about."""
WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")
LONGEST_LOOK = 4000
"""Characters that are enough to tell."""
FEWEST_WORDS = 4
FOREIGN_SHARE, ENGLISH_SHARE = 0.25, 0.25
"""Shares of common words up to which a text may not be English, and from which it may be; nearly half is usual."""


def count_words(text: str) -> tuple[int, int]:
    """Return how many words a text has and how many of them every English text has.

    Example:
        >>> count_words("How do I bake the bread?")
        (6, 4)
    """
    words = WORD.findall(text[:LONGEST_LOOK].lower())
    return len(words), sum(word in COMMON for word in words)


def is_english(text: str) -> bool:
    """Tell whether a text may be English as it stands: a good part of its words are such as all texts have.

    Example:
        >>> is_english("This is how you boil the water."), is_english("guvf vf ubj lbh qb vg")
        (True, False)
    """
    words, common = count_words(text)
    return common > FOREIGN_SHARE * words


def turns_english(text: str, turned: str) -> bool:
    """Tell whether another form of a text is English beyond chance, and more so than the text itself.

    Example:
        >>> turns_english("guvf vf ubj lbh qb vg", "this is how you do it"), turns_english("na na na na", "an an an an")
        (True, False)
    """
    turned = turned[:LONGEST_LOOK].lower()
    # A key or a hash has letters enough for short words, but no blanks between them.
    if len(turned.split()) < FEWEST_WORDS:
        return False
    words = WORD.findall(turned)
    common = [word for word in words if word in COMMON]
    if len(words) < FEWEST_WORDS or len(set(common)) < 2 or len(common) < ENGLISH_SHARE * len(words):
        return False
    others, shared = count_words(text)
    return 2 * shared * len(words) < len(common) * max(1, others)


def looks_like_text(text: str, *, strict: bool = False) -> bool:
    r"""Tell whether decoded bytes were text: printable, mostly letters and blanks, in words.

    Args:
        text: What came out of a decoder; what was no character is U+FFFD there.
        strict: Ask for English words too, where chance alone makes letters (from rows of numbers).

    Example:
        >>> looks_like_text("First, boil the water."), looks_like_text("\x03\ufffdG8"), looks_like_text("x93jK2lq0PzW8")
        (True, False, False)
    """
    text = text[:LONGEST_LOOK].strip()
    if len(text) < 6:
        return False
    bad = sum(letter == "\ufffd" or not (letter.isprintable() or letter in "\n\r\t") for letter in text)
    fit = sum(letter.isalpha() or letter.isspace() or letter in ".,;:!?'\"-" for letter in text)
    if bad > 0.02 * len(text) or fit < 0.8 * len(text):
        return False
    words, common = count_words(text)
    if strict or text.isascii():
        # Chance makes letters, but neither vowels in every word nor words that all texts have.
        spoken = [word for word in WORD.findall(text.lower()) if re.search("[aeiouy]", word)]
        if len(spoken) < 0.6 * max(1, words) or _changes_case(text):
            return False
    return (words >= 2 and common >= 1) if strict else True


def _changes_case(text: str) -> bool:
    """Tell whether capitals stand inside words, as chance puts them and writers do not."""
    inside = len(re.findall(r"(?<=[a-z])[A-Z]", text))
    return inside > 0.1 * len(text)
