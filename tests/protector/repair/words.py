"""A guard that explains, and whose judgement everybody can foresee."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence

from llava.data.token_scores import TokenScore

HARMFUL = "poison"
NEIGHBOURS = 2
"""Words on both sides that look as harmful as the word itself; a score is that of a token's surroundings."""


class WordDetector:
    """Flags texts with the word `poison`, or what else `judge` says, and shows where the word is.

    As a network that reads from the left, it takes the `echo` words behind the harmful one for harmful too.
    """

    name, identity, threshold = "words", "words@0.5", 0.5

    def __init__(self, judge: Callable[[str], float] | None = None, echo: int = 0):
        """Judge by the word, or by a function of the text; remember what was asked."""
        self.judge = judge or (lambda text: 0.9 if HARMFUL in text else 0.1)
        self.echo = echo
        self.scored: list[list[str]] = []
        self.explained: list[str] = []
        self.threads: set[int] = set()

    def score(self, responses: Sequence[str], prompts: Sequence[str]) -> list[float]:
        """Return the score of each response."""
        self.scored.append(list(responses))
        return [self.judge(response) for response in responses]

    def explain(self, prompt: str, response: str) -> list[TokenScore]:
        """Return a score for each word."""
        self.explained.append(response)
        self.threads.add(threading.get_ident())
        words = list(re.finditer(r"[A-Za-z]+[\s.,`]*|\S\s*", response))
        places = [number for number, word in enumerate(words) if HARMFUL in word[0]]
        tokens = []
        for number, word in enumerate(words):
            if any(abs(number - place) <= NEIGHBOURS for place in places):
                score = 0.999
            else:
                score = 0.9 if any(0 < number - place <= self.echo for place in places) else 0.02
            tokens.append(TokenScore(word.start(), word.end(), score))
        return tokens
