"""Characters that nobody sees: zero-width ones, tags, and marks heaped onto letters."""

from __future__ import annotations

import re
import unicodedata

TAGS: dict[int, str | None] = {0xE0000 + code: chr(code) for code in range(0x20, 0x7F)}
"""Invisible copies of ASCII; those that begin and end them stand for nothing."""
TAGS |= {0xE0001: None, 0xE007F: None}
FLAG_OR_TAGS = re.compile("\U0001f3f4[\U000e0020-\U000e007e]+\U000e007f|[\U000e0001\U000e0020-\U000e007f]+")
"""The flag of a region, which is spelled in tags, or tags for another purpose."""
UNSEEN = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\ufff9-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0100-\U000e01ef]+"
)
"""Characters without a glyph: joiners, direction marks, soft hyphens, fillers, variation selectors."""
FIRST_WITH_JOINERS = 0x530
"""From here on are scripts and symbols in which joiners do something; below are Latin, Greek and Cyrillic."""
MOST_MEANT = 2
"""So many invisible characters together may mean something (an emoji's selector and a joiner)."""

MARKS = "\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f"
MARK = re.compile(f"[{MARKS}]")
WORD = re.compile(rf"(?:[^\W\d_][{MARKS}]*)+")
LETTER_AND_MARKS = re.compile(rf"([^\W\d_])([{MARKS}]+)")
SIGN_AND_MARKS = re.compile(rf"([\x00-@\[-`{{-\x7f])([{MARKS}]+)")
ACCENTED = re.compile(
    "(?<![A-Za-z\u00c0-\u024f\u1e00-\u1eff])(?:[A-Za-z]*[\u00c0-\u024f\u1e00-\u1eff]){4}[A-Za-z\u00c0-\u024f\u1e00-\u1eff]*"
)
"""A word with four letters or more that have their accents within."""
KEYCAP = "\u20e3"
ACCENTS = frozenset("\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u0309\u030a\u030b\u030c\u031b\u0323\u0327\u0328")
"""Marks that languages put on letters."""
BEARERS = frozenset("aeiouymngɔɛəAEIOUYMNGƆƐƏ")
"""Latin letters that bear accents for which Unicode has no letter of its own (Yoruba, Guarani and others)."""
SLAVONIC = frozenset(map(chr, range(0x483, 0x488)))
MOST_ACCENTS, ACCENTED_SHARE = 4, 0.75
"""A word with so many accented letters, and so large a share of them, is in no language."""


def drop_unseen(text: str) -> str:
    r"""Spell out tags, and take invisible characters away from Latin, Greek and Cyrillic letters.

    Joiners between Arabic or Indic letters, or inside an emoji, stay: they have a meaning there.

    Example:
        >>> drop_unseen("bo\u200bok \U000e0068\U000e0069"), drop_unseen("می\u200cخواهم") == "می\u200cخواهم"
        ('book hi', True)
    """
    text = FLAG_OR_TAGS.sub(lambda match: match[0] if match[0][0] == "\U0001f3f4" else match[0].translate(TAGS), text)
    return UNSEEN.sub(_keep_meant, text)


def _keep_meant(match: re.Match[str]) -> str:
    """Return invisible characters where a script or a symbol needs them, else nothing."""
    found, (start, end) = match[0], match.span()
    before, after = match.string[start - 1 : start], match.string[end : end + 1]
    if len(found) > MOST_MEANT:
        return ""
    if "\ufe00" <= found <= "\ufe0f" and before and not before.isalpha():
        return found  # makes an emoji of a sign or a digit
    western = [bool(letter) and letter.isalnum() and ord(letter) < FIRST_WITH_JOINERS for letter in (before, after)]
    foreign = [bool(letter) and ord(letter) >= FIRST_WITH_JOINERS for letter in (before, after)]
    return found if any(foreign) and not any(western) else ""


def drop_marks(text: str) -> str:
    r"""Take marks away that no language puts there; ordinary accents stay, composed or not.

    Example:
        >>> drop_marks("h̵o̵w cafe\u0301 Việt ẹ̀kọ́ ḿáḱé") == "how cafe\u0301 Việt ẹ̀kọ́ make"
        True
    """
    text = ACCENTED.sub(_drop_word_marks, text)
    if not MARK.search(text):
        return text
    text = WORD.sub(_drop_word_marks, text)
    return SIGN_AND_MARKS.sub(lambda match: match[1] + (KEYCAP if KEYCAP in match[2] else ""), text)


def _drop_word_marks(match: re.Match[str]) -> str:
    """Return a word without its marks where one of them does not belong, and as it is otherwise."""
    word = match[0]
    if word.isascii():
        return word
    if not all(_is_accent(found[1], found[2]) for found in LETTER_AND_MARKS.finditer(word)):
        return MARK.sub("", word)
    apart = unicodedata.normalize("NFD", word)
    bases, accented = MARK.sub("", apart), len(LETTER_AND_MARKS.findall(apart))
    many = accented >= MOST_ACCENTS and accented >= ACCENTED_SHARE * len(bases)
    return bases if many and bases.isascii() else word


def _is_accent(letter: str, marks: str) -> bool:
    """Tell whether marks may stand on a letter in some language."""
    code = ord(letter)
    if FIRST_WITH_JOINERS <= code < 0x1E00 or code >= 0x2000:
        return True  # scripts that are not looked at
    if len(unicodedata.normalize("NFC", letter + marks)) == 1:
        return True
    base = unicodedata.normalize("NFD", letter)
    every = base[1:] + marks
    if code >= 0x370:  # Greek and Cyrillic
        return len(every) <= MOST_ACCENTS and set(every) <= ACCENTS | SLAVONIC | {
            "\u0313",
            "\u0314",
            "\u0342",
            "\u0345",
        }
    return len(every) <= 2 and set(every) <= ACCENTS and base[0] in BEARERS
