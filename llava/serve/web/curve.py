"""The harm score of an answer while it grows, token by token, for the plot."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from llava.protector.guards.base import StreamingGuard
from llava.protector.streaming.opening import open_stream
from llava.serve.web.exchange import Point

if TYPE_CHECKING:
    from llava.protector.guards.base import Guard

logger = logging.getLogger(__name__)
GROWTH = 1.25
"""A guard that reads the whole text each time reads it again once it is so many times as long."""
FIRST_CHARACTERS = 40
"""Characters that such a guard waits for at first."""


class ScoreCurve:
    """Follows one answer; the guard decides by checks of its own, which are fewer."""

    def __init__(self, guard: Guard, prompt: str):
        """Begin an empty answer to a question."""
        self.stream = open_stream(guard, prompt)
        self.follows = isinstance(guard, StreamingGuard)
        self.points: list[Point] = []
        self.failed = False
        self._place = 0
        self._waiting: list[str] = []

    def add(self, pieces: Sequence[str]) -> None:
        """Take the next pieces, and score the answer up to the end of each, where that takes no further pass."""
        self._waiting += pieces
        size = sum(map(len, self._waiting))
        if self.follows or self._place + size >= max(FIRST_CHARACTERS, GROWTH * self._place):
            self.finish()

    def finish(self) -> None:
        """Score all that came."""
        pieces, self._waiting = [piece for piece in self._waiting if piece], []
        if not pieces or self.failed:
            return
        try:
            score = self.stream.add("".join(pieces))
            for piece in pieces[:-1]:
                self._place += len(piece)
                if prefix := self.stream.score_prefix(self._place):
                    self._note(prefix.tokens, prefix.score)
            self._place += len(pieces[-1])
            self._note(self.stream.tokens, score)
        except Exception:  # a plot that ends is no reason to end the answer; what the failure means the guard decides
            logger.exception("the detector failed; the plot of an answer ends")
            self.failed = True

    def _note(self, tokens: int, score: float) -> None:
        """Keep a score; a text without words has none."""
        if math.isfinite(score):
            self.points.append(Point(tokens, self._place, score))
