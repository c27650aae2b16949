"""Letters that pass for Latin ones, made Latin where the text around them is; other languages stay as they are."""

from __future__ import annotations

import re
from itertools import pairwise

from llava.data.lookalikes import ALL, LATIN_FORMS, LETTERLIKE, LOOSE, REGIONAL, SQUARES, STRICT, STYLED, WIDE

_STYLED = {code: letter for code, letter in STYLED.items() if chr(code) not in LETTERLIKE}
_IN_WORDS = {code: letter for code, letter in STYLED.items() if chr(code) in LETTERLIKE}
_INSIDE = re.compile(
    "(?<=[A-Za-z])[\u2100-\u214f]+|[\u2100-\u214f]+(?=[A-Za-z])"  # ℎ of a mathematical alphabet, but not ℝ alone
)
_SQUARES = re.compile("[\U0001f170-\U0001f189]{3,}")
_LONE_REGIONAL = re.compile("(?<![\U0001f1e6-\U0001f1ff])[\U0001f1e6-\U0001f1ff](?![\U0001f1e6-\U0001f1ff])")
_LIGATURES = {0xFB00: "ff", 0xFB01: "fi", 0xFB02: "fl", 0xFB03: "ffi", 0xFB04: "ffl", 0xFB05: "st", 0xFB06: "st"}
_WIDE_RUN = re.compile("[\uff01-\uff20\uff3b-\uff40\uff5b-\uff5e\u3000]+")
_OTHER_BLANKS = re.compile("(?<=[A-Za-z])[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000](?=[A-Za-z])")
_ANY_STYLED = re.compile(
    "[\u00a0\u1680\u1d2c-\u1d6a\u2000-\u200a\u202f\u205f\u2071-\u207f\u2100-\u214f\u249c-\u24e9\u3000\ufb00-\ufb06\uff01-\uff5e"
    "\U0001d400-\U0001d7ff\U0001f110-\U0001f1ff]"
)
_ANY_DOUBLE = re.compile(f"[{''.join(ALL)}]")
_WORD = re.compile(r"[^\W\d_]+")

LATIN_SHARE = 5
"""So many Latin letters for each letter that is only of another script make a text Latin."""
FOREIGN_SHARE = 0.25
"""Letters in words of another alphabet, for each Latin one, from which on a text may put its endings to Latin names."""
FUNCTIONS = ("sin", "cos", "tan", "cot", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh", "log", "ln", "exp", "d")
"""What stands before a Greek letter in a formula."""


def fold_styled(text: str) -> str:
    """Write full-width, mathematical, circled, raised and boxed letters as plain ones.

    Raised and circled digits stay, and so do wide marks among Chinese or Japanese.

    Example:
        >>> fold_styled("Ｈｏｗ　ｔｏ， 𝗯𝗮𝗸𝗲 ⓑⓡⓔⓐⓓ"), fold_styled("x² ∈ ℝ，２０２４年")
        ('How to, bake bread', 'x² ∈ ℝ，２０２４年')
    """
    if not _ANY_STYLED.search(text):
        return text
    text = _SQUARES.sub(lambda match: match[0].translate(SQUARES), text)
    text = _LONE_REGIONAL.sub(lambda match: match[0].translate(REGIONAL), text)
    text = text.translate({**_STYLED, **_LIGATURES})
    text = _INSIDE.sub(lambda match: match[0].translate(_IN_WORDS), text)
    text = _WIDE_RUN.sub(_fold_wide, text)
    return _OTHER_BLANKS.sub(" ", text)


def _fold_wide(match: re.Match[str]) -> str:
    """Return wide marks, digits and blanks as plain ones where both neighbours are plain."""
    start, end = match.span()
    around = match.string[max(0, start - 1) : start] + match.string[end : end + 1]
    return match[0].translate(WIDE) if around.isascii() and any(map(str.isalnum, around)) else match[0]


def fold_lookalikes(text: str) -> str:
    """Write letters of other scripts as the Latin ones that they pass for, inside words that are meant to be Latin.

    A word that mixes scripts is folded when all its foreign letters have a double; one that is wholly of doubles, when
    its neighbours are Latin and the text is. Words of other languages stay, and so does what formulas mix.

    Example:
        >>> fold_lookalikes("hоw tо mаke тhе сосоа"), fold_lookalikes("Сорок соро́к, USB-кабель, sin α")
        ('how to make the cocoa', 'Сорок соро́к, USB-кабель, sin α')
    """
    if not _ANY_DOUBLE.search(text):
        return text
    words = list(_WORD.finditer(text))
    kinds = [_classify(word[0]) for word in words]
    latin = sum(letter.isascii() for word in words for letter in word[0])
    own = sum(_is_own(letter) for word in words if not word[0].isascii() for letter in word[0])
    foreign = sum(len(word[0]) for word, kind in zip(words, kinds, strict=True) if kind == "other")
    kinds = _place_in_context(words, kinds, latin, own)
    pieces, end = [], 0
    for word, kind in zip(words, kinds, strict=True):
        if kind == "mixed" and not _is_ordinary_mix(word[0], foreign=foreign > FOREIGN_SHARE * latin):
            pieces += [text[end : word.start()], "".join(ALL.get(letter, letter) for letter in word[0])]
            end = word.end()
    return "".join([*pieces, text[end:]])


def _classify(word: str) -> str:
    """Return `latin`, `mixed` (to be folded), `double` (wholly of doubles) or `other`."""
    if word.isascii():
        return "latin"
    doubles = [letter in ALL for letter in word]
    western = [ord(letter) < 0x250 or 0x1E00 <= ord(letter) < 0x1F00 for letter in word]
    if not any(doubles):
        return "latin" if all(western) else "other"
    if not all(double or here for double, here in zip(doubles, western, strict=True)):
        return "other"
    if any(here and not double for here, double in zip(western, doubles, strict=True)):
        return "mixed"
    if all(letter in LATIN_FORMS for letter in word):
        return "mixed" if len(word) > 1 else "other"
    return "double" if all(letter in STRICT or letter in LATIN_FORMS for letter in word) else "other"


def _is_own(letter: str) -> bool:
    """Tell whether a letter belongs to another alphabet beyond doubt."""
    return letter not in STRICT and letter.isalpha() and 0x370 <= ord(letter) < 0x590


def _place_in_context(words: list[re.Match[str]], kinds: list[str], latin: int, own: int) -> list[str]:
    """Return kinds in which words of doubles that stand among Latin ones are `mixed`."""
    placed, start = list(kinds), 0
    while start < len(kinds):
        end = start + 1
        if kinds[start] == "double":
            while end < len(kinds) and kinds[end] == "double":
                end += 1
            around = kinds[max(0, start - 1) : start] + kinds[end : end + 1]
            if around and "other" not in around and latin > own:
                for place in range(start, end):
                    if len(words[place][0]) > 1 or latin >= LATIN_SHARE * max(1, own):
                        placed[place] = "mixed"
        start = end
    return placed


def _is_ordinary_mix(word: str, *, foreign: bool) -> bool:
    """Tell whether people mix scripts in this word without meaning to deceive.

    Args:
        word: Latin letters and doubles of others.
        foreign: Whether the text is to a good part in another alphabet; it puts its endings to Latin names then.
    """
    scripts = [ord(letter) >= 0x370 and letter not in LATIN_FORMS for letter in word]
    changes = sum(first != second for first, second in pairwise(scripts))
    if foreign and changes == 1 and not scripts[0]:
        return True
    greek = [letter in LOOSE and 0x370 <= ord(letter) < 0x400 for letter in word]
    if sum(scripts) == sum(greek) == 1 and changes == 1:
        latin = "".join(letter for letter, is_other in zip(word, scripts, strict=True) if not is_other)
        return len(word) < 5 or latin.lower() in FUNCTIONS
    return len(word) <= 3 and sum(scripts) == sum(greek) > 0
