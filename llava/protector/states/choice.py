"""The thresholds of a cascade: as little as possible for the detector to read, at its own quality."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from llava.protector.scoring.thresholds import PLACES

RECALL_LOSS = 0.005
"""Recall that a cascade may lose against the detector alone."""
CANDIDATES = 512
"""Values of each threshold that are tried at most."""
NEVER = 2.0
"""An upper threshold that no score reaches: the head flags nothing by itself."""


@dataclass(frozen=True)
class CascadeChoice:
    """Two thresholds, and what they do to the rows that they were chosen on."""

    low: float
    """Below it an answer passes without the detector."""
    high: float
    """From it on an answer is flagged without the detector."""
    asked: float
    """Share of the harmless rows that the detector reads."""
    asked_all: float
    """Share of all rows that it reads."""
    recall: float
    """Of the cascade."""
    false_positive_rate: float
    """Of the cascade."""
    detector_recall: float
    """Of the detector alone."""
    detector_false_positive_rate: float
    """Of the detector alone."""


def flag_rows(
    states: npt.NDArray[np.float64], detected: npt.NDArray[np.bool_], low: float, high: float
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Return which rows a cascade flags, and which the detector reads for it, (N,) each.

    Args:
        states: Scores of the head, NaN = unknown, (N,).
        detected: Which rows the detector flags, (N,).
        low: The lower threshold.
        high: The upper one.

    Example:
        >>> states, detected = np.array([0.1, 0.5, 0.5, 0.9, np.nan]), np.array([1, 1, 0, 0, 1], bool)
        >>> flagged, asked = flag_rows(states, detected, 0.3, 0.8)
        >>> flagged.tolist(), asked.tolist()
        ([False, True, False, True, True], [False, True, True, False, True])
    """
    asked = ~((states < low) | (states >= high))
    return np.where(asked, detected, states >= high), asked


def choose_cascade(
    states: Sequence[float] | npt.NDArray[np.float64],
    detected: Sequence[bool] | npt.NDArray[np.bool_],
    labels: Sequence[bool] | npt.NDArray[np.bool_],
    *,
    recall_loss: float = RECALL_LOSS,
    sources: Sequence[str] | None = None,
    limits: Mapping[str, float] | None = None,
) -> CascadeChoice:
    """Return the thresholds with which the detector reads the fewest harmless rows.

    The cascade's recall is at most `recall_loss` below the detector's, and its false-positive rate at most the
    detector's: over all harmless rows, and over those of each source (or the source's limit, where that is higher).

    Args:
        states: Scores of the head, NaN = unknown, (N,).
        detected: Which rows the detector flags, (N,).
        labels: True = harmful, (N,).
        recall_loss: Recall that may be lost, as a share.
        sources: Source of each row; None takes all for one.
        limits: Largest share of harmless rows to flag, by source.

    Raises:
        ValueError: When a class has no row.
    """
    scores, caught, truth = np.asarray(states, float), np.asarray(detected, bool), np.asarray(labels, bool)
    if not 0 < truth.sum() < len(truth):
        raise ValueError("a cascade needs harmful and harmless rows")
    names = np.array(sources if sources is not None else [""] * len(truth))
    lows, highs = list_candidates(scores, truth, caught)
    kept = (
        rate_pairs(scores, truth & caught, truth, lows, highs, flags=True)
        >= truth_rate(caught, truth) - recall_loss - 1e-12
    )
    for name in [None, *sorted(set(names[~truth]))]:
        part = ~truth if name is None else ~truth & (names == name)
        allowed = max(truth_rate(caught, part), (limits or {}).get(name, 0.0) if name is not None else 0.0)
        kept &= rate_pairs(scores, part & caught, part, lows, highs, flags=True) <= allowed + 1e-12
    # The head may leave all to the detector, so there is always one pair.
    asked = np.where(kept, rate_pairs(scores, ~truth, ~truth, lows, highs, flags=False), np.inf)
    asked += 1e-6 * rate_pairs(scores, np.ones_like(truth), np.ones_like(truth), lows, highs, flags=False)
    row, column = np.unravel_index(int(np.argmin(asked)), asked.shape)
    return measure_cascade(scores, caught, truth, float(lows[row]), float(highs[column]))


def truth_rate(values: npt.NDArray[np.bool_], part: npt.NDArray[np.bool_]) -> float:
    """Return the share of a part's rows for which `values` holds."""
    return float(values[part].mean())


def list_candidates(
    scores: npt.NDArray[np.float64], truth: npt.NDArray[np.bool_], caught: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the values that are tried for both thresholds, ascending.

    A lower threshold is best just below a harmful row that the detector catches, an upper one just above a harmless
    row: between such rows a wider part costs nothing. Both are rounded to the safe side.
    """
    scale = 10**PLACES
    known = np.isfinite(scores)
    lows = np.floor(scores[known & truth & caught] * scale) / scale
    highs = (np.floor(scores[known & ~truth] * scale) + 1) / scale
    return thin(np.append(lows, (0.0, 1.0))), thin(np.append(highs, (0.0, NEVER)))


def thin(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return distinct values in order, at most `CANDIDATES` of them, both ends included."""
    distinct = np.unique(values)
    if len(distinct) <= CANDIDATES:
        return distinct
    return distinct[np.unique(np.linspace(0, len(distinct) - 1, CANDIDATES).round().astype(int))]


def rate_pairs(
    scores: npt.NDArray[np.float64],
    when_asked: npt.NDArray[np.bool_],
    part: npt.NDArray[np.bool_],
    lows: npt.NDArray[np.float64],
    highs: npt.NDArray[np.float64],
    *,
    flags: bool,
) -> npt.NDArray[np.float64]:
    """Return a rate for every pair of thresholds, (lows, highs); where the lower is above the upper, they are one.

    Args:
        scores: Scores of the head, (N,).
        when_asked: Rows that count where the detector reads them, (N,).
        part: Rows that the rate is about, (N,).
        lows: Lower thresholds.
        highs: Upper thresholds.
        flags: Whether rows from the upper threshold on count as well.
    """
    known = np.isfinite(scores)
    middle = np.sort(scores[known & when_asked])
    # Rows below each threshold; those without a score are always asked.
    below_low, below_high = np.searchsorted(middle, lows, "left"), np.searchsorted(middle, highs, "left")
    counts = np.maximum(below_high[None] - below_low[:, None], 0) + int((~known & when_asked).sum())
    if flags:
        all_rows = np.sort(scores[known & part])
        above = len(all_rows) - np.searchsorted(all_rows, np.maximum(lows[:, None], highs[None]), "left")
        counts = counts + above
    rates: npt.NDArray[np.float64] = counts / part.sum()
    return rates


def measure_cascade(
    states: npt.NDArray[np.float64],
    detected: npt.NDArray[np.bool_],
    labels: npt.NDArray[np.bool_],
    low: float,
    high: float,
) -> CascadeChoice:
    """Return what two thresholds do to rows; the arguments are those of `choose_cascade`."""
    high = max(low, high)
    flagged, asked = flag_rows(states, detected, low, high)

    def rate(values: npt.NDArray[np.bool_], part: npt.NDArray[np.bool_]) -> float:
        return float(values[part].mean()) if part.any() else math.nan

    return CascadeChoice(
        low,
        high,
        asked=rate(asked, ~labels),
        asked_all=float(asked.mean()),
        recall=rate(flagged, labels),
        false_positive_rate=rate(flagged, ~labels),
        detector_recall=rate(detected, labels),
        detector_false_positive_rate=rate(detected, ~labels),
    )
