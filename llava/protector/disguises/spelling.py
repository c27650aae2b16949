"""Words taken apart or spelled with digits and signs, put together again."""

from __future__ import annotations

import re
from itertools import pairwise

_SPACED = re.compile(r"(?<!\S)[^\s\w]?\w(?:[ \t\u00a0]{1,4}(?:[^\s\w]\w|\w[^\s\w]|\S)(?!\S)){3,}")
"""Single characters with blanks between them; a mark may stick to one of them."""
_PARTED = re.compile(r"(?<![\w.*·•~|-])([^\W\d_])([-_.*·•~|])(?:[^\W\d_]\2){2,}[^\W\d_](?![\w*·•~|-])")
_WIDE_GAP = re.compile(r"[ \t\u00a0]{2,}")
_BLANKS = re.compile(r"[ \t\u00a0]")
_OPERATORS = frozenset("+=*/<>^×÷|&%#\\{}[]")
_VOWELS = frozenset("aeiouyAEIOUYäöüáéíóúàèìòùâêîôûаеёиоуыэюяАЕЁИОУЫЭЮЯ")
_NOTES = frozenset("ABCDEFGH")
"""Choices, notes, rhyme schemes and columns are written in these."""
_BASES = frozenset("ACGTUNacgtun")
FEWEST_LETTERS, MOST_OPERATORS = 4, 0.1
"""Letters of a word that was taken apart; the share of signs from which on it is a formula."""

_LEET = {"0": "o", "1": "i", "3": "e", "4": "a", "5": "s", "7": "t", "@": "a", "$": "s", "!": "i"}
_TABLE = str.maketrans(_LEET)
_TOKEN = re.compile(r"(?<![^\s\"'(\[*])[A-Za-z0-9@$!]+(?=[.,;:?!)\]\"'*]*(?:\s|$)|'[a-z0-9]{1,2}\b)")
"""A word between blanks and marks; what has slashes, dots or underscores inside is code or an address."""
_NAMES = """
a11y b1g c3po d3js e10s g0v h1b h1n1 h3n2 h5n1 i1e j1939 k3s l10n l3d log4j log4net m4a m4v mp3s mp4s neo4j o1js
p0f p3p se7en s3cmd s4hana t1d t4g u1s v1beta1 v1alpha1 v1beta w3c w3schools web3js web3 x11 x15 y0y
"""
_KNOWN = frozenset(_NAMES.split())
"""Names that are spelled like this by everybody."""
_UNIT = re.compile(r"\d+[a-zA-Z]{1,3}|[a-zA-Z]\d+[a-zA-Z]?|\d+[a-zA-Z]\d+|[a-zA-Z]+\d+|[0-9a-fA-F]{6,}|0[xob]\w+")
"""Counts with units, names with numbers behind them, hexadecimal numbers."""
_SHORT_UNIT = re.compile(
    r"\d+(?:st|rd|th|am|pm|kg|mm|cm|km|ml|mg|gb|mb|kb|hz|px|pt|[a-zA-Z])|[a-zA-Z]\d{1,2}|@.*", re.I
)
_SHORT_LEET = re.compile("[014][fmnrst]|[bdghmnstw][03]", re.I)
_INNER_AT = re.compile("[a-z]@[a-z]+|[a-z]+@[a-z]{1,2}", re.I)
_INNER = re.compile(r"(?<=[a-z])(?:[013457@$!]{1,3})(?=[a-z])")
_LETTERS_AND_SIGNS = re.compile("[A-Za-z013457@$!]+")
_HAS_LETTER = re.compile("[A-Za-z]")
LONGEST_WORD, LONGEST_WITH_SIGNS = 24, 8
"""A longer word with a sign inside is two words with a mark between them, or somebody at some place."""
_CONSONANTS = re.compile(r"[bcdfghjklmnpqrstvwxz]{5}")
FEWEST_LEET = 2
"""So many words of the kind in a text are a habit, and then shorter ones count too."""


def join_letters(text: str) -> str:
    """Join letters that stand apart, as in `b a k e`; wider gaps are where words part.

    Example:
        >>> join_letters("h o w   t o   b a k e it, b-r-e-a-d"), join_letters("A B C D, a + b = c d, x y z")
        ('how to bake it, bread', 'A B C D, a + b = c d, x y z')
    """
    text = _SPACED.sub(_join_spaced, text)
    return _PARTED.sub(_join_parted, text)


def _join_spaced(match: re.Match[str]) -> str:
    """Return letters with blanks between them as words, or as they are where they are no spelling."""
    found = match[0]
    if not _is_spelling([letter for letter in found if not letter.isspace()]):
        return found
    return " ".join(_BLANKS.sub("", part) for part in _WIDE_GAP.split(found))


def _join_parted(match: re.Match[str]) -> str:
    """Return letters with signs between them as a word, or as they are: `U.S.S.R.` is no spelling."""
    letters = match[0].split(match[2])
    if match[2] == "." and (len(letters) < 5 or match[0].isupper()):
        return match[0]
    return "".join(letters) if _is_spelling(letters) else match[0]


def _is_spelling(characters: list[str]) -> bool:
    """Tell whether single characters are a word taken apart rather than choices, an alphabet or a formula."""
    letters = [letter for letter in characters if letter.isalpha()]
    kinds = set(letters)
    if len(letters) < FEWEST_LETTERS or len(letters) < 0.6 * len(characters) or len(kinds) < 3:
        return False
    operators = sum(sign in _OPERATORS for sign in characters)
    if (
        operators > MOST_OPERATORS * len(characters)
        or kinds <= _NOTES
        or kinds <= _BASES
        or len(set(letters[1::2])) == 1
    ):
        return False
    codes = [ord(letter) for letter in letters]
    steps = [second - first for first, second in pairwise(codes)]
    if sum(abs(step) <= 1 for step in steps) > 0.6 * len(steps):
        return False
    cased = any(letter.islower() or letter.isupper() for letter in letters)
    return not cased or bool(kinds & _VOWELS and kinds - _VOWELS)


def read_leet(text: str) -> str:
    """Write digits and signs inside words as the letters that they stand for; numbers, names and addresses stay.

    Example:
        >>> read_leet("b4ke br34d w1th y345t"), read_leet("mp3, 4th, H2O, 10am, sha256, a@b.de, 3f0a11")
        ('bake bread with yeast', 'mp3, 4th, H2O, 10am, sha256, a@b.de, 3f0a11')
    """
    if not any(sign in text for sign in _LEET):
        return text
    tokens = [match[0] for match in _TOKEN.finditer(text)]
    habit = sum(_is_leet(token, habit=False) for token in tokens) >= FEWEST_LEET
    return _TOKEN.sub(lambda match: _spell(match[0]) if _is_leet(match[0], habit=habit) else match[0], text)


def _is_leet(token: str, *, habit: bool) -> bool:
    """Tell whether a token is a word with digits or signs in place of letters.

    Args:
        token: Letters, digits and signs without blanks.
        habit: Whether the text has many of them.
    """
    body = token.rstrip("!")
    if (
        body.isalpha()
        or len(body) > LONGEST_WORD
        or not _LETTERS_AND_SIGNS.fullmatch(body)
        or not _HAS_LETTER.search(body)
    ):
        return False
    if not _HAS_LETTER.search(body):
        return False
    if len(body) > LONGEST_WITH_SIGNS and set(body) & set("@$!"):
        return False
    one_case = body.islower() or (body[0].isupper() and body[1:].islower()) or (habit and body.isupper())
    if body.lower() in _KNOWN or not one_case:
        return False
    word = _spell(body).lower()
    if not set(word) & _VOWELS or _CONSONANTS.search(word):
        return False
    if habit and (_SHORT_LEET.fullmatch(body) or not _SHORT_UNIT.fullmatch(body)):
        return True
    if "@" in body and not _INNER_AT.fullmatch(body):
        return False
    return len(body) >= 4 and not _UNIT.fullmatch(body) and bool(_INNER.search(body.lower()))


def _spell(token: str) -> str:
    """Return a token in letters; exclamation marks at its end stay."""
    body = token.rstrip("!")
    return body.translate(_TABLE) + token[len(body) :]
