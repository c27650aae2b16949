"""The words that synthetic pictures show: the most frequent ones of English, and a tail of rarer ones."""

from __future__ import annotations

import importlib.util
import random
from dataclasses import dataclass

from llava.errors import InputError

LONGEST = 13
"""Longer words do not fit a line of the larger fonts."""


@dataclass(frozen=True)
class Vocabulary:
    """Words by rank of frequency."""

    common: tuple[str, ...]
    """The words whose reading is promised and measured."""
    rare: tuple[str, ...] = ()
    """Words that teach the pieces of words, for text outside the vocabulary."""
    rare_share: float = 0.0
    """Share of rare words in what is drawn."""

    def draw(self, rng: random.Random) -> str:
        """Return a word; every common word is equally likely, so is every rare one."""
        if self.rare and rng.random() < self.rare_share:
            return rng.choice(self.rare)
        return rng.choice(self.common)


def load_vocabulary(common: int, rare: int = 0, rare_share: float = 0.0) -> Vocabulary:
    """Take the most frequent English words (package `wordfreq`) that are written in plain letters.

    Args:
        common: How many words are the vocabulary proper.
        rare: How many words follow as the tail.
        rare_share: Share of the tail in what is drawn, between 0 and 1.

    Raises:
        InputError: When wordfreq is not installed.
    """
    if importlib.util.find_spec("wordfreq") is None:
        raise InputError("the vocabulary comes from the package wordfreq; pip install 'mllm-protector[train]'")
    from wordfreq import top_n_list

    words = [word for word in top_n_list("en", 2 * (common + rare) + 1000) if _is_plain(word)]
    return Vocabulary(tuple(words[:common]), tuple(words[common : common + rare]), rare_share)


def _is_plain(word: str) -> bool:
    """Whether a word is made of plain letters and not a stray single one."""
    return word.isascii() and word.isalpha() and len(word) <= LONGEST and (len(word) > 1 or word in ("a", "i"))
