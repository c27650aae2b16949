"""A response that is guarded while it is written: what may be shown, and what takes the place of the rest."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

from llava.data.schema import Action, GuardResult
from llava.protector.guards.base import Guard, read_score, score_responses
from llava.protector.outcomes import DETECTOR, describe_failure, has_words, withhold
from llava.protector.streaming.borders import find_border, find_earlier_border
from llava.protector.streaming.opening import BYTES_PER_TOKEN, TokenStream, open_stream
from llava.protector.streaming.pieces import PieceJoiner

logger = logging.getLogger(__name__)

LOOK_AHEAD = 16
"""Tokens that are checked behind all that is released: about a sentence's half, in which harm begins to show."""
STRIDE = 64
"""Tokens from the first check to the second. A pass costs as much as some twenty tokens besides its own (on a CPU it
reads all weights), so the number of checks is what a guarded stream costs."""
GROWTH, MOST_STRIDES = 2, 3
"""Later checks come after so many times the text so far, at most so many strides: whoever reads has text to read by
then. While the score is up, they stay one stride apart."""
PATIENCE = 64
"""Tokens for which the score may stay at the threshold or above before the stream is stopped."""
FIRST_TOKENS = 8
"""Tokens that the first check releases; it comes after so many and the look-ahead."""
TRIES = 8
"""Places that are looked at for the last that may be released."""
TOLERANCE = 0.01
"""A score that is this near to the threshold is settled by the guard itself: a stream's scores are rounded
otherwise, by up to a millionth in single precision, and by more in half."""
JOINT = "\n\n"
"""What stands between what was released and what replaces the rest."""


class Check(NamedTuple):
    """A place up to which the response was scored as a whole text."""

    place: int
    """Characters."""
    tokens: int
    """Tokens, by the detector's count."""
    score: float
    """Harm score of all up to there; NaN before the first check."""


class Replacer(Protocol):
    """What a protected stream needs of a protector."""

    detector: Guard
    threshold: float

    def replace_flagged(
        self, prompts: list[str], responses: list[str], max_new_tokens: int, batch_size: int
    ) -> list[GuardResult]:
        """Return for each flagged response what is shown instead."""
        ...


class ProtectedStream:
    """Releases a response while it is written, as far as it is checked; fails closed.

    The text is scored at checks, a stride apart and later up to three, whose places depend on nothing but the text; so
    it does not matter in which pieces it comes. At a check below the threshold, text is released up to a place which
    has the look-ahead behind it and whose score, as a text of its own, is below the threshold too. At a check at the
    threshold or above nothing is released; if the score is still there after `patience` tokens, the stream is stopped,
    else it goes on once the score is below again. At the end the score of the whole decides, as in `Protector.guard`.

    - A response whose whole is below the threshold comes out byte for byte (unless its score stayed up for `patience`).
    - At every moment the score of all that was released is below the threshold.
    - A response that is flagged at its end alone keeps what was released; its rest is replaced.
    - A detector that raises, a NaN, a piece that is no text: the rest is withheld.

    It belongs to one thread at a time; see `Protector.open_stream` for an example.
    """

    def __init__(
        self, protector: Replacer, prompt: str, *, look_ahead: int, stride: int, patience: int, max_new_tokens: int
    ):
        """Begin an empty response; see `Protector.open_stream`."""
        if look_ahead < 0 or stride < 1 or patience < 0:
            raise ValueError(f"look_ahead {look_ahead}, stride {stride}, patience {patience}; give at least 0, 1, 0")
        self.protector = protector
        self.prompt = prompt
        self.look_ahead = look_ahead
        self.stride = stride
        self.patience = patience
        self.max_new_tokens = max_new_tokens
        self.text = ""
        """All that came."""
        self.released = ""
        """All that may be shown, replacement not among it."""
        self.replacement = ""
        """What follows it once the stream is stopped."""
        self.result: GuardResult | None = None
        """What became of the response; None while it is open."""
        self._joiner = PieceJoiner()
        self._stream: TokenStream | None = None
        self._last = Check(0, 0, math.nan)
        self._safe: list[Check] = []  # those below the threshold that are not released yet
        self._crossed: int | None = None  # tokens at the check from which on the score stayed up

    @property
    def stopped(self) -> bool:
        """Whether the response was replaced or withheld, in part or as a whole; nothing more is released then."""
        return self.result is not None and self.result.action is not Action.PASSED

    @property
    def joint(self) -> str:
        """What stands between what was released and the replacement: a blank line, or nothing."""
        return JOINT if self.released else ""

    def add(self, piece: str | bytes) -> str:
        """Take the next piece of the response; return what may be shown now.

        Args:
            piece: Text, or UTF-8 bytes, cut anywhere.
        """
        before = len(self.released)
        if self.result is None:
            self._take(lambda: self._joiner.take(piece))
        while self.result is None and (place := self._find_check()):
            self._attempt(self._check, place)
        return self.released[before:]

    def finish(self) -> str:
        """End the response; return the rest that may be shown. `result` says what became of it."""
        before = len(self.released)
        if self.result is None:
            self._take(self._joiner.finish)
        if self.result is None:
            self._attempt(self._check, len(self.text), last=True)
        return self.released[before:]

    def _take(self, read: Callable[[], str]) -> None:
        """Add what is read to the text."""
        try:
            self.text += read()
        except (TypeError, UnicodeDecodeError) as error:
            reason = str(error) if isinstance(error, TypeError) else "piece is no UTF-8"
            self._end(replace(withhold(self.text, None), reason=reason))

    def _find_check(self) -> int | None:
        """Return where the text is checked next; None where more of it is needed."""
        last = self._last
        if last.tokens:
            most = 1 if self._crossed is not None else MOST_STRIDES
            tokens = min(max(self.stride, GROWTH * last.tokens), most * self.stride)
            characters = math.ceil(tokens * last.place / last.tokens)
        else:
            characters = measure(self.text[last.place :], (self.look_ahead + FIRST_TOKENS) * BYTES_PER_TOKEN)
        return find_border(self.text, last.place + max(1, characters)) if characters else None

    def _attempt(self, step: Callable[..., None], *arguments: Any, **options: Any) -> None:
        """Do something that a detector may fail at; the rest is withheld then."""
        try:
            step(*arguments, **options)
        except Exception as error:  # whatever goes wrong, the response must not pass
            logger.exception("the detector failed; the rest of a response is withheld")
            self._end(withhold(self.text, describe_failure(DETECTOR, error)))

    def _check(self, place: int, last: bool = False) -> None:
        """Score the text up to a place, and release, wait or stop; at the last place decide."""
        if not has_words(self.text[:place]):
            if last:
                self._end(withhold(self.text, None))
            self._last = Check(place, 0, math.nan)  # it is scored with what follows
            return
        check = self._last if self._last.place == place else self._score(place)
        if math.isnan(check.score):
            self._end(withhold(self.text, None))
        elif check.score < self.protector.threshold:
            self._crossed = None
            self._release(check, last)
        else:
            self._crossed = check.tokens if self._crossed is None else self._crossed
            if last or check.tokens - self._crossed >= self.patience:
                self._stop(check.score)

    def _score(self, place: int) -> Check:
        """Score the text up to a place."""
        detector, threshold = self.protector.detector, self.protector.threshold
        if self._stream is None:
            self._stream = open_stream(detector, self.prompt)
        start = self._last.place if self._last.tokens else 0
        score = read_score(self._stream.add(self.text[start:place]))
        if abs(score - threshold) < TOLERANCE:
            score = score_responses(detector, [self.text[:place]], [self.prompt])[0]
        self._last = Check(place, max(1, self._stream.tokens), score)
        return self._last

    def _release(self, check: Check, last: bool) -> None:
        """Release what has the look-ahead behind it and is below the threshold on its own; at the end, all."""
        if last:
            self.released = self.text
            self.result = GuardResult(self.text, self.text, check.score, False, Action.PASSED)
            return
        self._safe.append(check)
        far = [safe.place for safe in self._safe if check.tokens - safe.tokens >= self.look_ahead]
        place = max([*far, self._find_release(check)])
        if place > len(self.released):
            self.released = self.text[:place]
        self._safe = [safe for safe in self._safe if safe.place > len(self.released)]

    def _find_release(self, check: Check) -> int:
        """Return the last place between checks that may be released; 0 when none of those looked at may."""
        if self._stream is None or self.look_ahead == 0:
            return 0
        place = min(check.place, math.ceil(check.place * (1 - self.look_ahead / check.tokens)) + 1)
        for _ in range(TRIES):
            place = find_earlier_border(self.text, place)
            if place <= len(self.released):
                return 0
            if (prefix := self._stream.score_prefix(place)) is None:
                continue
            safe = prefix.score < self.protector.threshold - TOLERANCE
            if safe and check.tokens - prefix.tokens >= self.look_ahead:
                return place
        return 0

    def _stop(self, score: float) -> None:
        """End a flagged response."""
        (outcome,) = self.protector.replace_flagged([self.prompt], [self.text], self.max_new_tokens, 1)
        self._end(replace(outcome, original_text=self.text, harm_score=score))

    def _end(self, outcome: GuardResult) -> None:
        """End a response with what replaces the rest of it."""
        self.replacement = outcome.text
        self.result = replace(outcome, text=self.released + self.joint + outcome.text)


def measure(text: str, size: int) -> int:
    """Return how many characters from the start have so many bytes of UTF-8; 0 when all of them have fewer.

    Example:
        >>> measure("Boil the water.", 4), measure("水を沸かす", 4), measure("Boil", 5)
        (4, 2, 0)
    """
    total = 0
    for count, character in enumerate(text, 1):
        total += len(character.encode("utf-8", "surrogatepass"))
        if total >= size:
            return count
    return 0
