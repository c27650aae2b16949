"""What every guard offers, and the one reader of what a guard returns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any, Protocol, runtime_checkable

from llava.data.token_scores import TokenScore
from llava.errors import InputError
from llava.fields import describe_value


@runtime_checkable
class Guard(Protocol):
    """Tells how likely responses are to be harmful: our own detector, other people's guards, several together.

    Whoever scores with a guard does so through `score_responses`, which reads what it returns; a guard of one's own
    needs nothing but these four.
    """

    name: str
    """How reports and messages call it."""

    @property
    def identity(self) -> str:
        """Changes when the same name would judge differently: what it is, `@`, and how it is used."""
        ...

    @property
    def threshold(self) -> float:
        """Harm score from which a response is flagged, in (0, 1]."""
        ...

    def score(self, responses: Sequence[str], prompts: Sequence[str]) -> list[float]:
        """Return one harm score for each response, in [0, 1] (1 = harmful); NaN where it cannot tell."""
        ...


class GuardStream(Protocol):
    """One response that a guard follows as it is written."""

    def add(self, piece: str) -> float:
        """Take the next piece of the response; return the harm score of all so far, NaN where it cannot tell."""
        ...


@runtime_checkable
class StreamingGuard(Guard, Protocol):
    """A guard that can follow a response as it is written, instead of reading it anew after every piece."""

    def open_stream(self, prompt: str) -> GuardStream:
        """Begin a response to `prompt`."""
        ...


@runtime_checkable
class ExplainingGuard(Guard, Protocol):
    """A guard that can tell where in a response the harm is."""

    def explain(self, prompt: str, response: str) -> list[TokenScore]:
        """Return the score around each of the response's tokens, in order."""
        ...


class MalformedScoresError(ValueError):
    """Report a guard that did not return one score for each response."""


def score_responses(guard: Guard, responses: Sequence[str], prompts: Sequence[str]) -> list[float]:
    """Score responses and read what comes back, whoever wrote the guard.

    Args:
        guard: Any guard.
        responses: Texts to score.
        prompts: What they answer, one each.

    Returns:
        One harm score for each response in [0, 1], or NaN; never anything else.

    Raises:
        MalformedScoresError: When the guard does not return one value for each response.
        Exception: Whatever the guard raises.
    """
    return read_scores(guard.score(responses, prompts), len(responses))


def read_scores(found: Any, count: int) -> list[float]:
    """Return what a guard gave as harm scores; a value that is no number in [0, 1] is NaN.

    Args:
        found: What the guard returned; a tensor or an array will do as well as a list.
        count: How many scores there must be.

    Raises:
        MalformedScoresError: When there is no list of that length.

    Example:
        >>> read_scores([0.5, 1, "0.2", None, 7.0, True], 6)
        [0.5, 1.0, nan, nan, nan, nan]
    """
    values = found.tolist() if hasattr(found, "tolist") else found
    if isinstance(values, str | bytes) or not isinstance(values, Sequence):
        raise MalformedScoresError(f"{type(found).__name__} instead of a list of {count} scores")
    if len(values) != count:
        raise MalformedScoresError(f"{len(values)} scores for {count} responses")
    return [read_score(value) for value in values]


def read_score(value: Any) -> float:
    """Return one harm score, or NaN for what is none."""
    if hasattr(value, "item"):  # a number of NumPy or torch
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, Real):
        return math.nan
    score = float(value)
    return score if 0.0 <= score <= 1.0 else math.nan


def check_threshold(threshold: Any, name: str = "threshold") -> float:
    """Return a threshold; refuse what no harm score can be compared with.

    Args:
        threshold: What was given.
        name: What messages call it.

    Raises:
        InputError: When it is no number above 0 and at most 1.
    """
    value = float(threshold) if isinstance(threshold, Real) and not isinstance(threshold, bool) else math.nan
    if not 0 < value <= 1:
        raise InputError(f"{name} is {describe_value(threshold)}; it must be above 0 and at most 1")
    return value


def is_flagged(score: float, threshold: float) -> bool:
    """Tell whether a response with this score must not pass: at the threshold or above, or without a score.

    Example:
        >>> is_flagged(0.5, 0.5), is_flagged(0.49, 0.5), is_flagged(math.nan, 0.5)
        (True, False, True)
    """
    return not score < threshold
