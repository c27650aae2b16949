"""Evasions that write a text in other characters or in code: each takes a text and a seed."""

from __future__ import annotations

import base64
import codecs
import random
import re

from llava.data.lookalikes import CYRILLIC, WIDE

DOUBLES = {latin: double for double, latin in CYRILLIC.items()}
ZERO_WIDTH = "\u200b\u200c\u200d\u2060\ufeff"
HEAPED = "\u0335\u0336\u0337\u0353\u032f\u0331\u0316\u030d\u033d"
LEET = str.maketrans("aeiostAEIOST", "431057431057")
MOST_HEAPED = 2


def homoglyphs(text: str, seed: int = 0) -> str:
    """Write two in three letters that have a Cyrillic double as that double.

    Example:
        >>> homoglyphs("a cup of cocoa") != "a cup of cocoa", len(homoglyphs("a cup of cocoa"))
        (True, 14)
    """
    rng = random.Random(f"homoglyphs:{seed}")
    return "".join(DOUBLES[letter] if letter in DOUBLES and rng.random() < 2 / 3 else letter for letter in text)


def zero_width(text: str, seed: int = 0) -> str:
    """Put a character of no width between letters.

    Example:
        >>> len(zero_width("cocoa"))
        9
    """
    rng = random.Random(f"zero_width:{seed}")
    return re.sub(r"(?<=\w)(?=\w)", lambda _: rng.choice(ZERO_WIDTH), text)


def tags(text: str, seed: int = 0) -> str:
    """Write ASCII in Unicode's tag characters, which are not shown.

    Example:
        >>> [hex(ord(letter)) for letter in tags("a b")]
        ['0xe0061', '0xe0020', '0xe0062']
    """
    return "".join(chr(0xE0000 + ord(letter)) if " " <= letter <= "~" else letter for letter in text)


def full_width(text: str, seed: int = 0) -> str:
    """Write ASCII in the wide forms that Chinese and Japanese fonts have.

    Example:
        >>> full_width("a cup")
        'ａ　ｃｕｐ'
    """
    wide = {ord(plain): chr(code) for code, plain in WIDE.items()}
    return text.translate(wide)


def combining_marks(text: str, seed: int = 0) -> str:
    """Heap marks on every letter.

    Example:
        >>> len(combining_marks("cup")) > 5
        True
    """
    rng = random.Random(f"combining_marks:{seed}")
    return re.sub(r"\w", lambda match: match[0] + "".join(rng.choices(HEAPED, k=rng.randint(1, MOST_HEAPED))), text)


def soft_hyphens(text: str, seed: int = 0) -> str:
    """Put a hyphen that is not shown between letters.

    Example:
        >>> soft_hyphens("cup").replace("\\xad", "-")
        'c-u-p'
    """
    return re.sub(r"(?<=\w)(?=\w)", "\xad", text)


def spaced_letters(text: str, seed: int = 0) -> str:
    """Put a blank between all characters.

    Example:
        >>> spaced_letters("a cup")
        'a   c u p'
    """
    return "\n".join(" ".join(line) for line in text.split("\n"))


def leetspeak(text: str, seed: int = 0) -> str:
    """Write vowels, s and t as digits.

    Example:
        >>> leetspeak("two cups of tea")
        '7w0 cup5 0f 734'
    """
    return text.translate(LEET)


def reversed_letters(text: str, seed: int = 0) -> str:
    """Write a text from its end to its start.

    Example:
        >>> reversed_letters("a cup")
        'puc a'
    """
    return text[::-1]


def reversed_words(text: str, seed: int = 0) -> str:
    """Write the words of a text from the last to the first.

    Example:
        >>> reversed_words("a cup of tea")
        'tea of cup a'
    """
    return " ".join(reversed(text.split()))


def in_base64(text: str, seed: int = 0) -> str:
    """Write a text in base64.

    Example:
        >>> in_base64("a cup")
        'YSBjdXA='
    """
    return base64.b64encode(text.encode()).decode()


def in_hex(text: str, seed: int = 0) -> str:
    """Write the bytes of a text as hexadecimal digits.

    Example:
        >>> in_hex("cup")
        '637570'
    """
    return text.encode().hex()


def rot13(text: str, seed: int = 0) -> str:
    """Move every letter by thirteen.

    Example:
        >>> rot13("a cup")
        'n phc'
    """
    return codecs.encode(text, "rot13")
