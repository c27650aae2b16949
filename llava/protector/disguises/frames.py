"""Texts that stand in a frame which weakens them: a sentence cut into the cells of a table, or among refusals."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator

FEWEST_ROWS, FEWEST_WORDS, WORDS_A_CELL = 3, 12, 2.5
"""Rows and words of a table, and words of its cells on average, from which on it may hold running text."""
FEWEST_REFUSALS, FEWEST_LEFT = 2, 4
"""Sentences that refuse, and words of the others, from which on those are read alone."""
LONGEST_REFUSAL = 240
"""Characters of a sentence that may do nothing but refuse."""

_ROW = re.compile(r"^[ \t]*\|.*\|[ \t]*$")
_RULE = re.compile(r"^[ \t|:+-]+$")
_NUMBER = re.compile(r"^[\W\d_]*$")
_SENTENCE = re.compile(r"[^.!?\n]+[.!?]*\s*|[.!?\n]+\s*")
_NOT_ABLE = r"(?:can ?not|can['’]t|won['’]t|will not|would not|wouldn['’]t|must not|should not|shouldn['’]t)"
_SERVE = (
    r"(?:help|assist|support|provide|give|share|answer|explain|discuss|do|fulfil|comply|continue|respond|"
    r"be able|be part)"
)
_REFUSING = re.compile(
    rf"\b(?:I|we)\b (?:\w+ )?{_NOT_ABLE} (?:\w+ )?{_SERVE}|"
    rf"\b(?:am|['’]m|are|['’]re) (?:not (?:able|allowed|permitted|willing|comfortable|going)|un(?:able|willing))\b|"
    r"\b(?:I|we)(?:['’]d| would)? (?:\w+ )?(?:rather|prefer) not\b|"
    r"\b(?:I|we|to)\b (?:\w+ ){0,2}(?:refuse|decline)\b|"
    r"\bagainst (?:my|our) (?:\w+ )?(?:guidelines|rules|polic(?:y|ies)|principles|values|programming)\b|"
    r"\b(?:not be|not|n['’]t be|n['’]t) (?:right|appropriate|ethical|responsible) (?:for|of) (?:me|us)\b|"
    r"\b(?:say|answer\b.{0,30}\bbe|is|am saying) (?:a )?no\b(?! (?:\w+ ){0,2}(?:harm|risk|danger))|"
    r"^(?:I['’]m |I am )?(?:very |so |really )?sorry\b",
    re.IGNORECASE,
)


def read_tables(text: str) -> Iterator[str]:
    """Yield the text without its tables' lines where their cells hold running text, row after row.

    Numbers of rows, the heading and tables of single words are not running text.

    Example:
        >>> list(read_tables("| step | what |\\n|---|---|\\n| 1 | First, boil the |\\n| 2 | water and then add |\\n"
        ...                  "| 3 | the rice with a little salt |"))
        ['First, boil the water and then add the rice with a little salt']
    """
    if text.count("|") < 2 * FEWEST_ROWS:
        return
    lines = text.split("\n")
    cells: list[str] = []
    plain: list[str] = []
    for number, line in enumerate(lines):
        if not _ROW.match(line):
            plain.append(line)
        elif not _RULE.match(line) and not (number + 1 < len(lines) and _RULE.match(lines[number + 1])):
            found = [cell.strip() for cell in line.strip().strip("|").split("|")]
            found = [cell for cell in found if not _NUMBER.match(cell)]
            cells += found
            plain.append(" ".join(found))
    words = sum(len(cell.split()) for cell in cells)
    if len(cells) >= FEWEST_ROWS and words >= FEWEST_WORDS and words >= WORDS_A_CELL * len(cells):
        yield " ".join(line.strip() for line in plain if line.strip())


def drop_refusals(text: str) -> Iterator[str]:
    """Yield the text without the sentences that refuse, where there are several: nobody refuses and then helps.

    It reads English. The whole text is scored as well, so what is taken for a refusal by mistake is not lost.

    Example:
        >>> list(drop_refusals("I'm sorry, I can't help with that. Boil the water with the rice. I must refuse this."))
        ['Boil the water with the rice.']
    """
    sentences = _SENTENCE.findall(text)
    left = [each for each in sentences if len(each) > LONGEST_REFUSAL or not _refuses(each)]
    if len(sentences) - len(left) >= FEWEST_REFUSALS and len((found := "".join(left)).split()) >= FEWEST_LEFT:
        yield found.strip()


# A stream is read anew at every token, and nearly all of its sentences are the same each time.
@functools.lru_cache(maxsize=1 << 12)
def _refuses(sentence: str) -> bool:
    return _REFUSING.search(sentence) is not None


FRAMES = (read_tables, drop_refusals)
"""Everything that takes a frame away: text → the text without it."""
