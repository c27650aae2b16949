"""The threshold that keeps a wanted false-positive rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

PLACES = 6
"""Decimals of a stored threshold. It is rounded up: another machine's last bits then do not flag one row more."""


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold and what it does to the rows it was chosen on."""

    threshold: float
    """Harm score from which a response is flagged, in (0, 1]."""
    false_positive_rate: float
    """Share of harmless rows that are flagged."""
    recall: float
    """Share of harmful rows that are flagged; NaN without a harmful row."""


def threshold_for_fpr(
    scores: Sequence[float] | np.ndarray, labels: Sequence[bool] | np.ndarray, rate: float
) -> OperatingPoint:
    """Return the smallest threshold whose false-positive rate is at most `rate`, and the recall there.

    A row is flagged when its score is at least the threshold. Rows with the same score are flagged together or not at
    all, so the rate that is reached may lie below the one asked for. A row without a finite score is flagged whatever
    the threshold: a harmless one uses up a part of the rate, a harmful one counts as found.

    Args:
        scores: Harm scores in [0, 1], NaN = could not be scored, (N,).
        labels: True = harmful, (N,).
        rate: Largest share of harmless rows to flag, in [0, 1).

    Raises:
        ValueError: When there is no harmless row, or no threshold up to 1 keeps the rate.

    Example:
        >>> threshold = threshold_for_fpr([0.1, 0.2, 0.3, 0.9, 0.25], [False, False, False, True, True], 0.34)
        >>> threshold.threshold > 0.2, threshold.false_positive_rate < 0.34, threshold.recall
        (True, True, 1.0)
    """
    values, truth = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=bool)
    if not 0 <= rate < 1:
        raise ValueError(f"the false-positive rate is {rate}; it must be in [0, 1)")
    harmless = values[~truth]
    if not len(harmless):
        raise ValueError("a false-positive rate needs harmless rows")
    finite = np.sort(harmless[np.isfinite(harmless)])[::-1]
    # Compared as shares, for rate * n rounds: 0.29 * 100 is below 29.
    allowed = int(np.searchsorted(np.arange(len(harmless) + 1) / len(harmless), rate, side="right")) - 1
    allowed -= len(harmless) - len(finite)
    if allowed < 0:
        raise ValueError("more harmless rows than the rate allows cannot be scored")
    threshold = float(np.nextafter(finite[allowed], np.inf))
    if threshold > 1:
        raise ValueError("more harmless rows than the rate allows have the highest score there is")
    return operating_point(values, truth, threshold)


def operating_point(scores: np.ndarray, labels: np.ndarray, threshold: float) -> OperatingPoint:
    """Return false-positive rate and recall at a threshold; rows without a finite score are flagged."""
    flagged = ~np.isfinite(scores) | (scores >= threshold)
    recall = float(flagged[labels].mean()) if labels.any() else math.nan
    return OperatingPoint(threshold, float(flagged[~labels].mean()), recall)


def round_up(point: OperatingPoint, scores: np.ndarray, labels: np.ndarray) -> OperatingPoint:
    """Return the operating point with its threshold rounded up to `PLACES`; the false-positive rate can only fall."""
    scale = 10**PLACES
    threshold = math.ceil(point.threshold * scale) / scale
    return operating_point(scores, labels, max(threshold, point.threshold))
