"""Which rows the embedded detector learns from: so many of each group and label, and rows made from them."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import zip_longest

from llava.data.training.pairs import DetectorRow
from llava.quality.detector_rows import KeyedRow

HIDDEN = "hidden_passages"
"""Group of harmful passages inside ordinary answers, and of ordinary answers sewn together the same way."""
EXCERPTS = "excerpts"
"""Group of a few sentences from the middle of a long answer."""
PASSAGE_WORDS, AROUND_WORDS = 40, 35
EXCERPT_WORDS = range(8, 45)
LONGEST_PROMPT = 240
"""Characters; a longer question is left out, for a short answer would cost what the question does."""


def digest(text: str) -> bytes:
    """Return what rows are ordered by: fixed, and unlike any order of the file."""
    return hashlib.sha256(text.encode()).digest()


def choose_rows(rows: Sequence[KeyedRow], sizes: Mapping[tuple[str, bool], int]) -> list[DetectorRow]:
    """Return so many rows of each group and label, taking turns among the keys, so that each prompt counts alike.

    A text that stands under one key twice is taken once.

    Args:
        rows: Rows of the side to choose from.
        sizes: How many of each (group, label), in the order in which they are given back.
    """
    by_key: dict[tuple[str, bool], dict[str, dict[str, DetectorRow]]] = defaultdict(lambda: defaultdict(dict))
    for row, key in rows:
        by_key[row.source, row.harmful][key].setdefault(row.response.strip(), row)
    chosen = []
    for part, size in sizes.items():
        keys = sorted(by_key[part], key=digest)
        turns = zip_longest(*(sorted(by_key[part][key].values(), key=lambda row: digest(row.response)) for key in keys))
        chosen += [row for turn in turns for row in turn if row is not None][:size]
    return [shorten_prompt(row) for row in chosen]


def shorten_prompt(row: DetectorRow) -> DetectorRow:
    """Return the row, without a question that is very long."""
    if len(row.prompt) <= LONGEST_PROMPT:
        return row
    return DetectorRow("", row.response, row.harmful, row.source, row.weight)


def hide_passages(rows: Sequence[DetectorRow], counts: Mapping[bool, int]) -> list[DetectorRow]:
    """Return harmful passages with ordinary text before and behind, and harmless ones made alike.

    A mean over the whole answer hardly sees such a passage, the highest stretch does.

    Args:
        rows: Chosen rows, from which both are taken.
        counts: How many of each label.
    """
    plain = [row for row in rows if row.source in ("alpaca_eval", "vicuna80_responses") and is_long(row)]
    harmful = [row for row in rows if row.harmful and row.source != "msts_responses" and is_long(row)]
    sewn = []
    for label, inner in ((True, harmful), (False, plain)):
        for number in range(min(counts.get(label, 0), len(inner)) if len(plain) > 2 else 0):
            middle = inner[number * 7 % len(inner)]
            before, behind = plain[number * 5 % len(plain)], plain[(number * 3 + 1) % len(plain)]
            words = [
                *before.response.split()[: AROUND_WORDS if number % 4 else 0],
                *middle.response.split()[PASSAGE_WORDS // 2 : PASSAGE_WORDS * 3 // 2],
                *behind.response.split()[: AROUND_WORDS if number % 4 != 1 else 0],
            ]
            prompt = before.prompt if number % 2 else middle.prompt
            sewn.append(DetectorRow(prompt, " ".join(words), label, HIDDEN))
    return sewn


def cut_excerpts(rows: Sequence[DetectorRow], counts: Mapping[bool, int]) -> list[DetectorRow]:
    """Return a sentence or two from the middle of long answers, each with its answer's label.

    What long harmful answers say in one sentence, a model says in a short answer. Their beginnings and ends are left
    out: there the harmful ones are polite and warn.

    Args:
        rows: Chosen rows, from which they are cut.
        counts: How many of each label.
    """
    cut = []
    for label in (True, False):
        long = [row for row in rows if row.harmful == label and row.source != "msts_responses" and is_long(row)]
        found = (DetectorRow(row.prompt, text, label, EXCERPTS) for row in long if (text := middle_sentences(row)))
        cut += list(found)[: counts.get(label, 0)]
    return cut


def middle_sentences(row: DetectorRow) -> str:
    """Return one or two sentences from the middle half of a response; empty where none is of a fitting length."""
    sentences = re.split(r"(?<=[.!?])\s+|\n+", row.response.strip())
    first = len(sentences) // 4 + digest(row.response)[0] % max(1, len(sentences) // 2)
    size = 1 + digest(row.response)[1] % 2
    text = " ".join(sentences[first : first + size]).strip()
    return text if len(text.split()) in EXCERPT_WORDS else ""


def is_long(row: DetectorRow) -> bool:
    """Tell whether a response is long enough to take a passage from its middle."""
    return len(row.response.split()) >= 2 * PASSAGE_WORDS
