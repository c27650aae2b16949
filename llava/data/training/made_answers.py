"""Ordinary short answers, made from sentences with gaps: what a multimodal model says most and data sets lack.

Yes and no, numbers, names, captions, advice, refusals, and harmless sentences about knives, medicine, war, bodies and
computers. All are harmless; the sentences are in `made_answers.yaml`.
"""

from __future__ import annotations

import random
import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from llava.data.training.pairs import DetectorRow

SENTENCES = Path(__file__).with_name("made_answers.yaml")
SOURCE = "made_answers"
"""Name that metrics give these rows."""
GAP = re.compile(r"\{([a-z]+)(2?)\}")
MOST_TRIES = 50
"""Draws for one new pair; a kind with few sentences is used up before."""


@cache
def read_sentences() -> dict[str, Any]:
    """Return the words and, by kind, the questions and answers with gaps."""
    sentences: dict[str, Any] = yaml.safe_load(SENTENCES.read_text(encoding="utf-8"))
    return sentences


def make_answers(each: int, seed: int = 0) -> list[DetectorRow]:
    """Return made rows, none of them harmful and no two alike.

    Args:
        each: Rows of every kind; a kind that has fewer different ones gives what it has.
        seed: Another seed gives other rows.

    Example:
        >>> rows = make_answers(2)
        >>> len(rows) == 2 * len(read_sentences()["answers"]), any(row.harmful for row in rows)
        (True, False)
    """
    sentences, made = read_sentences(), []
    for kind, parts in sentences["answers"].items():
        draw = random.Random(f"{seed}/{kind}")
        seen: set[tuple[str, str]] = set()
        for _ in range(each):
            for _ in range(MOST_TRIES):
                pair = fill_gaps(draw.choice(parts["q"]), draw.choice(parts["a"]), sentences["words"], draw)
                if pair not in seen:
                    seen.add(pair)
                    made.append(DetectorRow(*pair, False, SOURCE))
                    break
    return made


def fill_gaps(question: str, answer: str, words: dict[str, list[str]], draw: random.Random) -> tuple[str, str]:
    """Fill the gaps of a pair: `{thing}` is one word in both, `{thing2}` another; other braces stay.

    Example:
        >>> fill_gaps("A {x}?", '{"is": "{x2}"}', {"x": ["cat", "dog"]}, random.Random(0))
        ('A dog?', '{"is": "cat"}')
    """
    chosen: dict[str, str] = {}

    def fill(gap: re.Match[str]) -> str:
        name, second = gap.groups()
        if name not in chosen:
            chosen[name], chosen[name + "2"] = draw.sample(words[name], 2)
        return chosen[name + second]

    return GAP.sub(fill, question), GAP.sub(fill, answer)
