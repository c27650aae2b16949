"""Short answers, made from sentences with gaps: what a multimodal model says most and data sets lack.

- Ordinary ones (`made_answers.yaml`): yes and no, numbers, names, captions, advice, refusals, and harmless sentences
  about knives, medicine, war, bodies and computers.
- Mild harmful ones, each kind beside harmless sentences in the same words (`made_harm.yaml`).
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from llava.data.training.pairs import DetectorRow

SENTENCES, HARM_SENTENCES = (Path(__file__).with_name(name) for name in ("made_answers.yaml", "made_harm.yaml"))
SOURCE, HARM_SOURCE = "made_answers", "made_harm"
"""Names that metrics give these rows."""
GAP = re.compile(r"\{([a-z]+)(2?)\}")
MOST_TRIES = 50
"""Draws for one new pair; a kind with few sentences is used up before."""


class MadeRow(NamedTuple):
    """A made row, and the sentence that its answer was made from."""

    row: DetectorRow
    """The row."""
    sentence: str
    """The answer with its gaps: rows of one sentence belong on one side of a split."""


@cache
def read_sentences(path: Path = SENTENCES) -> dict[str, Any]:
    """Return the words and, by kind, the questions and answers with gaps."""
    sentences: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return sentences


def make_answers(each: int, seed: int = 0) -> list[DetectorRow]:
    """Return ordinary rows, none of them harmful and no two of a kind alike.

    Args:
        each: Rows of every kind; a kind that has fewer different ones gives what it has.
        seed: Another seed gives other rows.

    Example:
        >>> rows = make_answers(2)
        >>> len(rows) == 2 * len(read_sentences()["answers"]), any(row.harmful for row in rows)
        (True, False)
    """
    sentences = read_sentences()
    return [
        DetectorRow(question, answer, False, SOURCE)
        for kind, parts in sentences["answers"].items()
        for question, answer, _ in draw_pairs(parts["q"], parts["a"], sentences["words"], each, f"{seed}/{kind}")
    ]


def make_harm(each: int, seed: int = 0) -> list[MadeRow]:
    """Return made rows of both labels: short harmful answers, and harmless ones in the same words.

    Args:
        each: Rows of every kind and label.
        seed: Another seed gives other rows.

    Example:
        >>> made = make_harm(3)
        >>> sum(each.row.harmful for each in made) * 2 == len(made)
        True
    """
    sentences = read_sentences(HARM_SENTENCES)
    words = read_sentences()["words"] | sentences["words"]
    return [
        MadeRow(DetectorRow(question, answer, label == "harmful", HARM_SOURCE), sentence)
        for kind, parts in sentences["kinds"].items()
        for label in ("harmful", "harmless")
        for question, answer, sentence in draw_pairs(parts["q"], parts[label], words, each, f"{seed}/{kind}/{label}")
    ]


def draw_pairs(
    questions: Sequence[str], answers: Sequence[str], words: dict[str, list[str]], count: int, seed: str
) -> list[tuple[str, str, str]]:
    """Draw pairs, no two alike: question, answer, and the answer with its gaps."""
    draw = random.Random(seed)
    seen: set[tuple[str, str]] = set()
    drawn = []
    for _ in range(count):
        for _ in range(MOST_TRIES):
            question, sentence = draw.choice(questions), draw.choice(answers)
            pair = fill_gaps(question, sentence, words, draw)
            if pair not in seen:
                seen.add(pair)
                drawn.append((*pair, sentence))
                break
    return drawn


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
