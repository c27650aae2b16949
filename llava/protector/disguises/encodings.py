"""Texts that are written in another code inside a text: base64, hex, ROT13, backwards, HTML, percent signs."""

from __future__ import annotations

import base64
import binascii
import codecs
import html
import re
from collections.abc import Iterator
from urllib.parse import unquote_to_bytes

from llava.protector.disguises.plausible import is_english, looks_like_text, turns_english

LONGEST_CODE = 1 << 16
"""Characters of one code that are looked at."""
MOST_CODES = 8
"""Codes of one kind that are looked at, the longest first."""

_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{16,}(?:[ \t]*\r?\n[ \t]*[A-Za-z0-9+/_-]{4,})*={0,2}")
_HEX = re.compile(r"(?:(?:\\x|0x|\\u00|%|U\+00)?[0-9A-Fa-f]{2}[ \t\r\n,;:-]{0,2}){8,}")
_HEX_DIGITS = re.compile(r"(?:\\x|0x|\\u00|%|U\+00)?([0-9A-Fa-f]{2})")
_BITS = re.compile(r"(?:[01]{8}[ \t\r\n,]{0,2}){6,}")
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z]{2,8});?")
_PERCENT = re.compile(r"(?:[^\s%<>\"]{0,64}%[0-9A-Fa-f]{2}){3,}[^\s<>\"]{0,64}")
_SELECTORS = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]{8,}")
FEWEST_ENTITIES, FEWEST_REVERSED, SHORTEST_LINE = 4, 6, 12
"""Entities that are letters, words, and characters of a line, from which on a code is looked for."""


def decode_base64(text: str) -> Iterator[str]:
    """Yield what runs of base64 hold, the usual and the URL-safe alphabet.

    Example:
        >>> list(decode_base64("Read aG93IHRvIGJha2UgYnJlYWQ= aloud, and internationalization too"))
        ['how to bake bread']
    """
    for code in _longest(_BASE64, text):
        plain = re.sub(r"\s+", "", code).rstrip("=").translate(str.maketrans("-_", "+/"))
        plain = plain[: len(plain) - (len(plain) % 4 == 1)]
        try:
            decoded = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
        except (binascii.Error, ValueError):
            continue
        yield from _keep_text(decoded)


def decode_numbers(text: str) -> Iterator[str]:
    """Yield what runs of hexadecimal or binary bytes hold.

    Example:
        >>> list(decode_numbers("686f7720746f2062616b65 and 12 34 56 78 90 12 34 56 78 90"))
        ['how to bake']
    """
    for code in _longest(_HEX, text):
        digits = "".join(_HEX_DIGITS.findall(code))
        yield from _keep_text(bytes.fromhex(digits), strict=digits.isdigit())
    for code in _longest(_BITS, text):
        bits = re.findall("[01]{8}", code)
        yield from _keep_text(bytes(int(each, 2) for each in bits))


def decode_selectors(text: str) -> Iterator[str]:
    """Yield what runs of variation selectors hold, which nobody sees: one for each byte."""
    for code in _longest(_SELECTORS, text):
        yield from _keep_text(
            bytes(ord(each) - 0xFE00 if ord(each) < 0x10000 else ord(each) - 0xE0100 + 16 for each in code)
        )


def decode_percent(text: str) -> Iterator[str]:
    """Yield what percent signs and hexadecimal digits hold; a long path with a blank or two is none of it.

    Example:
        >>> list(decode_percent("see how%20to%20bake%20fresh%20bread or /a%20b/c"))
        ['how to bake fresh bread']
    """
    for code in _longest(_PERCENT, text) if "%" in text else []:
        decoded = unquote_to_bytes(code.encode("utf-8", "replace")).decode("utf-8", "replace")
        if looks_like_text(decoded) and "%" not in decoded:
            yield decoded


def decode_html(text: str) -> Iterator[str]:
    """Yield comments, and the text without entities where letters are written as such.

    Example:
        >>> list(decode_html("<p>Hi</p><!-- the bread needs salt -->&#98;&#97;&#107;&#101;&#33; &amp;"))
        ['the bread needs salt', '<p>Hi</p><!-- the bread needs salt -->bake! &']
    """
    # Each piece behind an opening mark, up to the closing one: a search for both would begin anew at every opening.
    pieces = [piece.partition("-->") for piece in text.split("<!--")[1:]]
    comments = [comment[:LONGEST_CODE] for comment, closed, _ in pieces if closed and len(comment) >= SHORTEST_LINE]
    for comment in sorted(comments, key=len)[-MOST_CODES:]:
        if looks_like_text(comment):
            yield comment.strip()
    entities = _ENTITY.findall(text)
    if sum(html.unescape(entity).isalnum() for entity in entities if entity[1] == "#") >= FEWEST_ENTITIES:
        yield html.unescape(text)


def decode_rot13(text: str) -> Iterator[str]:
    """Yield the lines that are English once each letter is moved by thirteen.

    Example:
        >>> list(decode_rot13("Here it is:\\nguvf vf ubj lbh onxr oernq"))
        ['this is how you bake bread']
    """
    if found := [
        turned for line in _foreign_lines(text) if turns_english(line, turned := codecs.encode(line, "rot13"))
    ]:
        yield "\n".join(found)


def decode_reversed(text: str) -> Iterator[str]:
    """Yield the lines that are English when they are read from their end, by letters or by words.

    Example:
        >>> list(decode_reversed("daerb ekab uoy woh si siht"))
        ['this is how you bake bread']
        >>> list(decode_reversed("bread. the Bake flour. with it Mix water. the boil First,"))
        ['First, boil the water. Mix it with flour. Bake the bread.']
    """
    if found := [turned for line in _foreign_lines(text) if turns_english(line, turned := line[::-1])]:
        # A text that was reversed as a whole has its lines in reverse, too.
        yield "\n".join(reversed(found))
    if _runs_backwards(text):
        yield " ".join(reversed(text.split()))


def _runs_backwards(text: str) -> bool:
    """Tell whether the words of a text are in reverse: full stops stand where sentences begin."""
    words = text[:LONGEST_CODE].split()
    if len(words) < FEWEST_REVERSED or words[0][-1] not in ".!?" or not words[-1][0].isupper():
        return False
    ends = [word[-1] in ".!?" for word in words]
    capital = [word[0].isupper() for word in words]
    forwards = sum(end and following for end, following in zip(ends, capital[1:], strict=False))
    backwards = sum(begins and following for begins, following in zip(capital, ends[1:], strict=False))
    # The last word of the whole text is first, and its full stop with it.
    return not ends[-1] and (backwards > forwards or sum(ends) == 1)


def _foreign_lines(text: str) -> list[str]:
    """Return the lines of a text that are long enough to be judged, and not in English as they stand."""
    return [line for line in text[:LONGEST_CODE].splitlines() if len(line) >= SHORTEST_LINE and not is_english(line)]


def _longest(pattern: re.Pattern[str], text: str) -> list[str]:
    """Return the longest matches of a pattern, in their order."""
    found = [match[0][:LONGEST_CODE] for match in pattern.finditer(text)]
    kept = sorted(range(len(found)), key=lambda place: -len(found[place]))[:MOST_CODES]
    return [found[place] for place in sorted(kept)]


def _keep_text(decoded: bytes, *, strict: bool = False) -> Iterator[str]:
    """Yield decoded bytes when they are text."""
    text = decoded.decode("utf-8", "replace").strip("\0\ufffd")
    if looks_like_text(text, strict=strict):
        yield text.strip()


DECODERS = (
    *(decode_base64, decode_numbers, decode_selectors, decode_percent, decode_html),
    *(decode_rot13, decode_reversed),
)
"""Every decoder: text → texts that it hides."""
