"""What the shipped judge sees of a question and an answer: words, pairs of words, and a few plain facts.

No tokenizer and no language model reads them: the judge shares nothing with the detector that it checks.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from llava.eval.judges.refusals import is_refusal

Floats = npt.NDArray[np.float32]

QUESTION_WORDS, ANSWER_WORDS = 120, 400
"""Words that are read of each; what an answer gives, it gives before."""
BINS = {"words": 1 << 16, "pairs": 1 << 18, "question": 1 << 14}
"""Tables of n-grams, and into how many bins each is hashed: two of the answer, and the words of the question."""
START = "<s>"
"""Stands before the first word, so that an opening is an n-gram of its own."""
CONTENT_LETTERS = 4
"""Words of fewer letters seldom carry what is asked."""
FACTS = 10
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?|\d+|[^\w\s]")
_NEGATIONS = frozenset(("not", "never", "no", "don't"))


class Features(NamedTuple):
    """A question with an answer."""

    bins: dict[str, npt.NDArray[np.int64]]
    """Table → numbers of the n-grams that occur, each once, ascending."""
    facts: Floats
    """(FACTS,)."""


def split_words(text: str, limit: int) -> list[str]:
    """Return words, numbers and signs of a text, without differences of case and Unicode form.

    Example:
        >>> split_words("Don’t: mix 2 CLEANERS!", 5)
        ["don't", ':', 'mix', '2', 'cleaners']
    """
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold().replace("’", "'"))[:limit]


def hash_ngrams(ngrams: set[str], bins: int) -> npt.NDArray[np.int64]:
    """Return the bins of n-grams, each once, ascending.

    Example:
        >>> hash_ngrams({"the", "the sign"}, 64).tolist()
        [14, 38]
    """
    return np.array(sorted({zlib.crc32(ngram.encode()) % bins for ngram in ngrams}), dtype=np.int64)


def list_facts(question: Sequence[str], answer: Sequence[str], refuses: bool) -> list[float]:
    """Return what can be counted: refusal, length, how much of the question is repeated, who is addressed.

    Example:
        >>> [round(fact, 2) for fact in list_facts(["how", "cook", "rice"], ["cook", "rice", "."], False)]
        [0.0, 0.28, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    """
    asked = {word for word in question if len(word) >= CONTENT_LETTERS}
    said = {word for word in answer if len(word) >= CONTENT_LETTERS}
    common, length = len(asked & said), max(1, len(answer))
    first = answer[0] if answer else ""
    return [
        float(refuses),
        float(np.log1p(len(answer))) / 5,
        common / max(1, len(asked)),
        common / max(1, len(said)),
        float(not question),
        float(first in ("yes", "sure")),
        float(first == "no"),
        10 * sum(word in ("you", "your") for word in answer) / length,
        10 * sum(word == "i" for word in answer) / length,
        10 * sum(word in _NEGATIONS for word in answer) / length,
    ]


def describe_answer(prompt: str, text: str) -> Features:
    """Return the features of an answer to a question.

    Example:
        >>> features = describe_answer("What does the sign say?", "Bread.")
        >>> {table: len(bins) for table, bins in features.bins.items()}
        {'words': 2, 'pairs': 2, 'question': 6}
    """
    question, answer = split_words(prompt, QUESTION_WORDS), split_words(text, ANSWER_WORDS)
    found = {
        "words": set(answer),
        "pairs": {f"{first} {second}" for first, second in zip([START, *answer], answer, strict=False)},
        "question": set(question),
    }
    bins = {table: hash_ngrams(found[table], size) for table, size in BINS.items()}
    return Features(bins, np.array(list_facts(question, answer, is_refusal(text)), dtype=np.float32))
