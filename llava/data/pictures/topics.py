"""Questions about what an image of words names, beside the same questions with the words in their place.

A model that reads an image answers both alike. `topics.yaml` holds harmless phrases by kind and questions about them.
"""

from __future__ import annotations

import hashlib
import random
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

FILE = Path(__file__).with_name("topics.yaml")
HELD_OUT = 5
"""Every so many-th phrase, by its hash, is for measuring alone."""


class Topic(NamedTuple):
    """A phrase, and one question about it in two forms."""

    phrase: str
    """What the image says."""
    kind: str
    """What it is: `activity`, `food`, …."""
    image_question: str
    """The question beside the image, which does not name the phrase."""
    text_question: str
    """The question without an image."""


@cache
def read_topics() -> dict[str, Any]:
    """Return phrases and questions by kind, and what may stand before a question about an image."""
    topics: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return topics


def is_held_out(phrase: str) -> bool:
    """Tell whether a phrase is for measuring alone.

    Example:
        >>> is_held_out("baking bread"), is_held_out("honey cake")
        (False, False)
    """
    return int(hashlib.sha256(phrase.encode()).hexdigest(), 16) % HELD_OUT == 0


def make_topics(number: int, *, held_out: bool, seed: int = 0) -> list[Topic]:
    """Return topics drawn from all kinds alike, no two the same.

    Args:
        number: How many; fewer when there are no more.
        held_out: Whether the phrases are those for measuring, or the others.
        seed: Another seed draws others.

    Example:
        >>> topic = make_topics(1, held_out=False, seed=3)[0]
        >>> topic.phrase in topic.text_question, topic.phrase in topic.image_question
        (True, False)
    """
    topics, rng = read_topics(), random.Random(seed)
    drawn: dict[Topic, None] = {}
    phrases = {
        kind: [phrase for phrase in some if is_held_out(phrase) is held_out] for kind, some in topics["phrases"].items()
    }
    for _ in range(20 * number):
        if len(drawn) == number:
            break
        kind = rng.choice(list(phrases))
        phrase, question = rng.choice(phrases[kind]), rng.choice(topics["questions"][kind])
        introduction = rng.choice(topics["introductions"]).replace("a {}", _with_article(kind))
        asked = introduction + question.replace("{}", f"this {kind}")
        drawn[Topic(phrase, kind, asked, question.replace("{}", phrase))] = None
    return list(drawn)


def _with_article(noun: str) -> str:
    """Return a noun with its article."""
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"
