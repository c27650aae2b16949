"""One question and its answers, as the page shows them at a moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from llava.data.schema import Action, GuardResult
from llava.protector.scoring.explanation import TokenScore


class Point(NamedTuple):
    """The harm score of an answer's beginning."""

    tokens: int
    """Its tokens, by the detector's count."""
    place: int
    """Its characters."""
    score: float
    """Its score as a text of its own."""


class Span(NamedTuple):
    """A stretch of an answer in which the harm lies."""

    start: int
    """Where it begins, in characters."""
    end: int
    """Where it ends."""
    score: float
    """The highest score of its tokens."""


@dataclass(frozen=True)
class Exchange:
    """What is known of a question's answers; each moment is an exchange of its own, so nobody sees one half changed."""

    prompt: str
    """The question."""
    threshold: float
    """Harm score from which an answer is flagged."""
    with_image: bool = False
    """Whether an image went with the question; the guard does not look at it."""
    raw: str = ""
    """What the model wrote."""
    points: tuple[Point, ...] = ()
    """Scores of its beginnings, in order."""
    tokens: tuple[TokenScore, ...] = ()
    """Scores of its tokens, once it is written; empty where the detector cannot tell."""
    released: str = ""
    """What the guard let go of it."""
    replacement: str = ""
    """What follows that where the guard stepped in, the joint included."""
    result: GuardResult | None = None
    """What the guard decided; None while it has not."""
    writing: bool = False
    """Whether the model still writes."""
    judging: bool = False
    """Whether the guard reads the answer anew."""
    error: str = ""
    """What went wrong, in one line."""

    @property
    def flagged(self) -> bool:
        """Whether the unguarded answer is none to show unasked; while it grows, whether a part was over the threshold.

        Example:
            >>> Exchange("Why?", 0.5, raw="Because", points=(Point(1, 7, 0.6),)).flagged
            True
        """
        if self.result is not None:
            return self.result.action is not Action.PASSED
        return any(not point.score < self.threshold for point in self.points)


def find_spans(tokens: tuple[TokenScore, ...], threshold: float) -> list[Span]:
    """Return where the harm lies in a flagged answer: its tokens at the threshold or above, as stretches.

    A token's score is that of the few tokens around it, the answer's that of longer stretches; so an answer may be
    flagged without any such token. Then it is the token with the highest score, and those beside it that come near.

    Args:
        tokens: As `HarmDetector.explain` returns them.
        threshold: Harm score from which the answer is flagged.

    Example:
        >>> tokens = (TokenScore(0, 3, 0.1), TokenScore(3, 8, 0.7), TokenScore(8, 9, 0.9), TokenScore(9, 12, 0.2))
        >>> find_spans(tokens, 0.5), find_spans(tokens, 0.95)
        ([Span(start=3, end=9, score=0.9)], [Span(start=8, end=9, score=0.9)])
    """
    scores = [token.score for token in tokens if token.score >= 0]  # NaN is not
    if not scores:
        return []
    least = min(threshold, NEAR * max(scores))
    spans: list[Span] = []
    for token in tokens:
        if not token.score >= least:
            continue
        if spans and token.start - spans[-1].end <= GAP:
            spans[-1] = Span(spans[-1].start, token.end, max(spans[-1].score, token.score))
        else:
            spans.append(Span(*token))
    return spans


NEAR = 0.95
"""Share of the highest score that still belongs to the same place."""
GAP = 1
"""Characters between two tokens that do not part a stretch: a blank."""
