"""Letters that look like Latin ones: from Cyrillic, Greek and other scripts, and dressed-up forms of Latin itself."""

from __future__ import annotations

import unicodedata


def _pair(text: str) -> dict[str, str]:
    """Read `аa еe` as letter → Latin letter."""
    return {pair[0]: pair[1] for pair in text.split()}


CYRILLIC = _pair(
    "аa еe оo рp сc уy хx іi јj ѕs ԁd һh ӏl ԛq ԝw ѵv АA ВB ЕE КK МM НH ОO РP СC ТT УY ХX ІI ЈJ ЅS ԌG ԚQ ԜW ӀI"
)
GREEK = _pair("οo ϲc ϳj ΑA ΒB ΕE ΖZ ΗH ΙI ΚK ΜM ΝN ΟO ΡP ΤT ΥY ΧX")
OTHER_SCRIPTS = _pair(
    "օo ոn սu հh ցg զq յj ՕO ՍU ՏS ԼL "  # Armenian
    "ᎪA ᏴB ᏟC ᎠD ᎬE ᏀG ᎻH ᎫJ ᏦK ᏞL ᎷM ᏢP ᎡR ᏚS ᎢT ᏙV ᎳW ᏃZ "  # Cherokee
    "ⲁa ⲕk ⲟo ⲣp ⲥc ⲛn "  # Coptic
    "ꓮA ꓐB ꓚC ꓓD ꓰE ꓝF ꓖG ꓧH ꓲI ꓙJ ꓗK ꓡL ꓟM ꓠN ꓳO ꓑP ꓣR ꓢS ꓔT ꓴU ꓦV ꓪW ꓫX ꓬY ꓜZ "  # Lisu
    "ᗩA ᗷB ᑕC ᗪD ᗴE ᖴF ᘜG ᕼH ᒍJ ᒪL ᗰM ᑎN ᑭP ᖇR ᔕS ᑌU ᐯV ᗯW"  # Canadian syllabics
)
STRICT = {**CYRILLIC, **GREEK, **OTHER_SCRIPTS}
"""Letters of other scripts that cannot be told from Latin ones by the eye."""

LOOSE = _pair("кk мm тt пn вb гr нh иu ьb αa εe ιi κk νv ρp τt υu χx γy ηn ωw")
"""Letters that are only like Latin ones; they count inside words that mix scripts."""

LATIN_FORMS = _pair("ᴀa ʙb ᴄc ᴅd ᴇe ꜰf ɢg ʜh ɪi ᴊj ᴋk ʟl ᴍm ɴn ᴏo ᴘp ꞯq ʀr ꜱs ᴛt ᴜu ᴠv ᴡw ʏy ᴢz ɑa ɡg ɩi ƅb")
"""Small capitals and other forms of Latin letters that Unicode does not decompose."""

ALL = {**LOOSE, **STRICT, **LATIN_FORMS}
"""Every look-alike → the Latin letter."""

LETTERLIKE = frozenset(map(chr, range(0x2100, 0x2150)))
"""Symbols such as ℝ, which are ordinary alone and a letter inside a word."""


def _find_styled() -> dict[int, str]:
    """Return code point → letter or digit of what Unicode calls another form of an ASCII one."""
    ranges = [
        *((0xFF21, 0xFF3B), (0xFF41, 0xFF5B)),  # full width
        *((0x1D400, 0x1D800), (0x2100, 0x2150)),  # mathematical, letterlike
        *((0x24B6, 0x24EA), (0x1F130, 0x1F14A), (0x1D2C, 0x1D6B), (0x2071, 0x2080)),  # in circles, squares, raised
    ]
    found = {}
    for first, end in ranges:
        for code in range(first, end):
            plain = unicodedata.normalize("NFKC", chr(code))
            if len(plain) == 1 and plain.isascii() and plain.isalnum():
                found[code] = plain
    for first, letter in ((0x249C, "a"), (0x1F110, "A"), (0x1F150, "A")):  # in brackets, white on black
        found |= {first + place: chr(ord(letter) + place) for place in range(26)}
    return found


STYLED = _find_styled()
"""Code point → ASCII letter or digit, for full-width, mathematical, circled and raised forms."""
SQUARES = {0x1F170 + place: chr(ord("A") + place) for place in range(26)}
"""White letters on black squares: some of them are emoji, for blood types and car parks."""
REGIONAL = {0x1F1E6 + place: chr(ord("A") + place) for place in range(26)}
"""Letters of which two make a flag."""
WIDE = {0xFF01 + place: chr(0x21 + place) for place in range(0x5E)} | {0x3000: " "}
"""All full-width forms of ASCII, and the blank that goes with them."""
