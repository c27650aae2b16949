"""Which parts of a text are cut: those that the harm comes from, not those that only stand behind it."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence

from llava.data.token_scores import TokenScore
from llava.protector.repair.parts import Part

HARM = 0.0
"""Mean log-odds of a part, above those of the threshold, from which harm is in it."""
ONSET = -2.5
"""From which a part belongs to the harm that rises behind it: the first sentence of a harmful passage says little."""
TAIL = -1.5
"""From which a part directly behind one that was cut goes too, looked at without that one: harm seldom ends at the
sentence at which its score falls below the threshold."""
MOST_CERTAIN = 1e-6
"""A score is taken for no nearer to 0 or 1 than that: beyond, log-odds know no end."""


def rate_parts(parts: Sequence[Part], tokens: Sequence[TokenScore], threshold: float) -> list[float]:
    """Return for each part how far its tokens' scores lie above the threshold: their mean, in log-odds.

    Args:
        parts: The parts of a text, in order.
        tokens: The scores of its tokens.
        threshold: Harm score from which the text is flagged.

    Returns:
        One number a part: plus infinity where a token has no finite score, minus infinity where there is no token.

    Example:
        >>> parts, tokens = [Part(0, 4), Part(4, 9), Part(9, 11)], [TokenScore(0, 6, 0.5), TokenScore(6, 9, 0.9)]
        >>> [round(value, 1) for value in rate_parts(parts, tokens, 0.5)]
        [0.0, 1.1, -inf]
    """
    starts = [part.start for part in parts]
    sums, counts = [0.0] * len(parts), [0] * len(parts)
    for start, end, score in tokens:
        value = log_odds(score) if math.isfinite(score) else math.inf
        place = max(0, bisect_right(starts, start) - 1)
        while place < len(parts) and parts[place].start < end:
            sums[place] += value
            counts[place] += 1
            place += 1
    least = log_odds(threshold)
    return [total / count - least if count else -math.inf for total, count in zip(sums, counts, strict=True)]


def log_odds(score: float) -> float:
    """Return the log-odds of a score.

    Example:
        >>> log_odds(0.5), round(log_odds(0.9), 2), log_odds(1.0) < 14
        (0.0, 2.2, True)
    """
    score = min(max(score, MOST_CERTAIN), 1 - MOST_CERTAIN)
    return math.log(score / (1 - score))


def mark_parts(values: Sequence[float]) -> set[int]:
    """Return the parts that harm comes from.

    A detector that reads from the left still has the harm in mind in the sentences behind it. So of each run of parts
    with harm in them only the highest one is marked, and those before it over which the values rise to it; whether the
    others say something harmful themselves shows once those are gone.

    Args:
        values: How far each part lies above the threshold, as `rate_parts` gives it.

    Returns:
        Numbers of parts; empty when there is no harm in any.

    Example:
        >>> mark_parts([-5.0, -1.5, 3.0, 2.0, 0.5, -4.0]), mark_parts([-5.0, -4.0])
        ({1, 2}, set())
    """
    marked: set[int] = set()
    place = 0
    while place < len(values):
        end = place
        while end < len(values) and values[end] >= HARM:
            end += 1
        if end > place:
            marked |= climb(values, max(range(place, end), key=lambda number: values[number]))
        place = end + 1
    return marked


def climb(values: Sequence[float], peak: int) -> set[int]:
    """Return a part and those before it over which the values rise to it."""
    first = peak
    while first > 0 and ONSET <= values[first - 1] <= values[first]:
        first -= 1
    return set(range(first, peak + 1))


def mark_tails(values: Sequence[float], follows: Sequence[bool]) -> set[int]:
    """Return the parts that still belong to harm before them that is cut already.

    Args:
        values: How far each part lies above the threshold, as `rate_parts` gives it of a text without what was cut.
        follows: Whether what stood directly before a part was cut.

    Example:
        >>> mark_tails([-5.0, -1.0, -1.0], [False, True, False])
        {1}
    """
    return {number for number, value in enumerate(values) if follows[number] and value >= TAIL}


def mark_all(values: Sequence[float]) -> set[int]:
    """Return every part with harm in it, whatever stands before it.

    Example:
        >>> mark_all([-5.0, -1.5, 3.0, 2.0, 0.5, -4.0])
        {2, 3, 4}
    """
    return {number for number, value in enumerate(values) if value >= HARM}
