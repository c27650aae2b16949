"""Answers that are harmful in one place: sentences of a harmful answer put into an ordinary one."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from llava.data.training.pairs import DetectorRow
from llava.errors import InputError
from llava.protector.repair.parts import cut_parts
from llava.quality.detector_rows import JAILBREAKBENCH, VICUNA, load_side

POSITIONS = ("start", "middle", "end")
"""Where in the ordinary answer the harmful sentences stand."""
QUESTIONS = ("ordinary", "both")
"""What was asked: the ordinary question alone, as when an image asks for the rest, or the harmful one after it."""
ORDINARY_SOURCES = ("alpaca_eval", VICUNA)
ORDINARY_WORDS = (60, 220)
"""Fewest and most words of an ordinary answer: a shorter one leaves little to keep, a longer one takes longer."""
HARMFUL_WORDS = (25, 60)
"""Fewest and most words of the harmful sentences."""


class RepairCase(NamedTuple):
    """One answer with harm in one place."""

    prompt: str
    """What was asked."""
    response: str
    """The ordinary answer with the harmful sentences in it."""
    start: int
    """Where the harmful sentences begin, in characters."""
    end: int
    """Where they end."""
    position: str
    """One of `POSITIONS`."""
    question: str
    """One of `QUESTIONS`."""
    group: str
    """The question that the harmful sentences answer; there are fewer of those than of the ordinary ones."""


def make_cases(data: Path, count: int, side: str = "held_out", seed: int = 0) -> list[RepairCase]:
    """Make cases from labelled answers, the same ones each time.

    Args:
        data: Folder of the data files, see `load_rows`.
        count: How many; positions and kinds of question take turns.
        side: `train`, `dev` or `held_out`; both halves of a case are of prompts of this side.
        seed: Another seed makes other cases.

    Raises:
        InputError: When a file is missing, or the side has no fitting answer.
    """
    rows = load_side(data, side)
    ordinary = [row for row in rows if row.source in ORDINARY_SOURCES and is_of_length(row.response, ORDINARY_WORDS)]
    harmful = [row for row in rows if row.source == JAILBREAKBENCH and row.harmful]
    generator = random.Random(f"{seed}/{side}")
    spans = {row.group: spans for row in harmful if (spans := list_spans(harmful, row.group))}
    if not ordinary or not spans:
        raise InputError(f"{data} has no ordinary and harmful answers of fitting length on the side {side}; add some")
    generator.shuffle(ordinary)
    groups = sorted(spans)
    cases = []
    for number in range(count):
        # Six cases of one harmful question have all positions and questions, each in another ordinary answer.
        turn, kind = divmod(number, len(POSITIONS) * len(QUESTIONS))
        group = groups[turn % len(groups)]
        position, question = POSITIONS[kind % len(POSITIONS)], QUESTIONS[kind // len(POSITIONS)]
        cases.append(join(ordinary[number % len(ordinary)], generator.choice(spans[group]), position, question))
    return cases


def is_of_length(text: str, bounds: tuple[int, int]) -> bool:
    """Tell whether a text has at least and at most so many words.

    Example:
        >>> is_of_length("Boil the water.", (3, 4)), is_of_length("Boil the water.", (4, 9))
        (True, False)
    """
    return bounds[0] <= len(text.split()) <= bounds[1]


def list_spans(rows: Sequence[DetectorRow], group: str) -> list[DetectorRow]:
    """Return runs of whole sentences of fitting length from the answers to one question.

    The last sentence of an answer is left out: it is often cut by the limit of its model.
    """
    found = []
    for row in rows:
        if row.group != group:
            continue
        parts = cut_parts(row.response)[:-1]
        for first in range(len(parts)):
            for last in range(first, len(parts)):
                text = row.response[parts[first].start : parts[last].end].strip()
                if is_of_length(text, HARMFUL_WORDS):
                    found.append(replace(row, response=text))
                    break
    return found


def join(ordinary: DetectorRow, harmful: DetectorRow, position: str, question: str) -> RepairCase:
    """Put harmful sentences into an ordinary answer, at the border of its sentences that is next to the position.

    Example:
        >>> ordinary = DetectorRow("How?", "Boil it. Salt it. Serve it.", False, "a")
        >>> case = join(ordinary, DetectorRow("Why?", "Drop it.", True, "b"), "middle", "ordinary")
        >>> case.response, case.response[case.start : case.end]
        ('Boil it. Drop it. Salt it. Serve it.', 'Drop it.')
    """
    text = ordinary.response.strip()
    borders = [0, *(part.end for part in cut_parts(text))]
    share = POSITIONS.index(position) / (len(POSITIONS) - 1)
    border = min(borders, key=lambda place: abs(place - share * len(text)))
    before, behind = text[:border], text[border:]
    before += " " if before and not before[-1].isspace() else ""
    prompt = ordinary.prompt if question == "ordinary" else f"{ordinary.prompt}\n{harmful.prompt}"
    start, end = len(before), len(before) + len(harmful.response)
    response = f"{before}{harmful.response} {behind}".rstrip()
    return RepairCase(prompt, response, start, end, position, question, harmful.group)
