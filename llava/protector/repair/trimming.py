"""Cut the harmful sentences out of flagged answers, and keep the others as they were written.

Each answer is looked at several times: the sentences that the harm comes from go, and the rest is explained anew, for a
sentence behind harm looks harmful until the harm is gone. When no harm is left to see, the rest is scored as a whole,
with its question. It is shown only when that score is below the threshold and enough of the answer is left.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import NamedTuple

from llava.data.removed import RemovedSpan
from llava.data.schema import Action, GuardResult
from llava.data.token_scores import TokenScore
from llava.protector.guards.base import ExplainingGuard, score_responses
from llava.protector.outcomes import DETECTOR, describe_failure, refuse
from llava.protector.repair.marks import mark_all, mark_parts, mark_tails, rate_parts
from llava.protector.repair.parts import Part, cut_parts

logger = logging.getLogger(__name__)

LOOKS = 8
"""Times that an answer is explained at most, the first time included; at the last, all that looks harmful is cut."""
TRIES = 2
"""Times that what is left is scored at most."""
LEAST_SHARE = 0.5
"""Share of an answer's letters that must be left: where half of it is harmful, harm is not local."""
LEAST_LETTERS = 24
"""Letters that must be left, some five words: less is a scrap that answers nothing."""
LONGEST_TEXT = 20_000
"""Characters up to which an answer is trimmed; of a longer one the passes would take too long."""


class Trim(NamedTuple):
    """What trimming made of a flagged response."""

    result: GuardResult | None
    """What is shown, without the original text's score; a refusal where the guard failed; None where the response
    cannot be trimmed, and something else must take its place."""
    token_scores: tuple[TokenScore, ...] | None
    """Where the harm is in the whole response; None where nobody asked."""


class Trimming:
    """One response while it is trimmed."""

    def __init__(self, prompt: str, response: str):
        """Begin with all of it."""
        self.prompt = prompt
        self.response = response
        self.kept: list[Part] = cut_parts(response) if len(response) <= LONGEST_TEXT else []
        self.least = max(LEAST_LETTERS, LEAST_SHARE * count_letters(response))
        self.looks = LOOKS
        self.flagged = True
        self.first: tuple[TokenScore, ...] | None = None
        self.result: GuardResult | None = None

    @property
    def text(self) -> str:
        """What is left."""
        return "".join(self.response[start:end] for start, end in self.kept)

    @property
    def is_open(self) -> bool:
        """Whether something may still come of it."""
        return self.result is None and count_letters(self.text) >= self.least

    def peel(self, guard: ExplainingGuard, threshold: float) -> None:
        """Cut until no harm is to be seen in what is left, or too little is left; a guard that fails ends it."""
        try:
            while self.is_open and (marked := self._look(guard, threshold)):
                self.kept = [part for number, part in enumerate(self.kept) if number not in marked]
                self.flagged = False
        except Exception as error:  # the response is flagged, and its guard is not to be asked again
            logger.exception("the detector could not say where the harm is")
            self.fail(error)

    def fail(self, error: Exception) -> None:
        """End with a refusal that says that the guard failed."""
        failure = describe_failure(DETECTOR, error)
        self.result = refuse(f"{failure.part} failed: {failure.error}", failure)

    def take(self, score: float, threshold: float) -> None:
        """Take the score of what is left: show it, or cut more."""
        self.flagged = True
        if score < threshold:  # False for NaN
            self.result = GuardResult(self.text, "", None, True, Action.TRIMMED, removed=list_removed(self))
        elif math.isnan(score):
            self.kept = []

    def _look(self, guard: ExplainingGuard, threshold: float) -> set[int]:
        """Return the numbers of the parts that go; none where no harm is to be seen, or it was looked for too often."""
        if self.looks == 0:
            if self.flagged:
                self.kept = []
            return set()
        self.looks -= 1
        tokens, parts = tuple(guard.explain(self.prompt, self.text)), close_gaps(self.kept)
        self.first = tokens if self.first is None else self.first
        if not tokens:
            self.kept = []
            return set()
        values = rate_parts(parts, tokens, threshold)
        marked = mark_parts(values) if self.looks else mark_all(values)
        marked |= mark_tails(values, find_cuts(self.kept))
        if not marked and self.flagged:
            # It is flagged for harm that no part shows alone; the likeliest part goes.
            marked = {max(range(len(values)), key=lambda number: values[number])}
        return marked


def trim_responses(
    guard: ExplainingGuard, threshold: float, prompts: Sequence[str], responses: Sequence[str]
) -> list[Trim]:
    """Cut the harm out of flagged responses where it is local.

    Args:
        guard: The guard that flagged them.
        threshold: Harm score from which it does.
        prompts: What the model was asked, one for each response.
        responses: What it answered.

    Returns:
        One a response, in order. Never raises for what the guard does: it is asked no more about a response that it
        failed at, which is refused.
    """
    trimmings = [Trimming(prompt, response) for prompt, response in zip(prompts, responses, strict=True)]
    for _ in range(TRIES):
        for trimming in trimmings:
            trimming.peel(guard, threshold)
        waiting = [trimming for trimming in trimmings if trimming.is_open]
        if not waiting:
            break
        try:
            scores = score_responses(guard, [each.text for each in waiting], [each.prompt for each in waiting])
        except Exception as error:  # whatever goes wrong, nothing unscored may be shown
            logger.exception("the detector failed; %d trimmed responses are refused", len(waiting))
            for trimming in waiting:
                trimming.fail(error)
            break
        for trimming, score in zip(waiting, scores, strict=True):
            trimming.take(score, threshold)
    return [Trim(trimming.result, trimming.first) for trimming in trimmings]


def find_cuts(parts: Sequence[Part]) -> list[bool]:
    """Return for each part that is kept whether what stood directly before it was cut.

    Example:
        >>> find_cuts([Part(0, 4), Part(9, 12), Part(12, 15)])
        [False, True, False]
    """
    ends = [0, *(part.end for part in parts)]
    return [part.start != end for part, end in zip(parts, ends, strict=False)]


def close_gaps(parts: Sequence[Part]) -> list[Part]:
    """Return where parts lie once they are put together.

    Example:
        >>> close_gaps([Part(0, 4), Part(9, 12)])
        [Part(start=0, end=4), Part(start=4, end=7)]
    """
    closed, place = [], 0
    for start, end in parts:
        closed.append(Part(place, place + end - start))
        place += end - start
    return closed


def list_removed(trimming: Trimming) -> tuple[RemovedSpan, ...]:
    """Return the stretches of a response that are not kept, neighbours together."""
    spans, place = [], 0
    for start, end in [*trimming.kept, Part(len(trimming.response), len(trimming.response))]:
        if start > place:
            spans.append(RemovedSpan(place, start, trimming.response[place:start]))
        place = end
    return tuple(spans)


def count_letters(text: str) -> int:
    """Return how many letters and digits a text has.

    Example:
        >>> count_letters("No. 7!")
        3
    """
    return sum(map(str.isalnum, text))
