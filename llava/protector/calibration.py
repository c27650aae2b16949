"""The arithmetic of calibration: the temperature of scores, and the threshold for a wanted false-positive rate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from llava.protector.scoring.limits import SourceLimits, SourceRate, rates_by_source, strictest_point
from llava.protector.scoring.thresholds import round_up, threshold_for_fpr

if TYPE_CHECKING:
    from collections.abc import Sequence

LOG_TEMPERATURES = (math.log(0.05), math.log(20.0))
"""Range of the search; perfectly separated rows would otherwise drive the temperature to 0."""
SEARCH_STEPS = 60
"""Golden-section steps: the range shrinks by 0.618 a step, to 1e-12."""
BINS = 15
"""Bins of the calibration error."""


@dataclass(frozen=True)
class Calibration:
    """Temperature and threshold, and what they do to the rows they were found on."""

    threshold: float
    temperature: float
    false_positive_rate: float
    """On the harmless rows that the rate was asked for."""
    recall: float
    ece_before: float
    """Expected calibration error over all rows with the checkpoint's former temperature."""
    ece_after: float
    harmless: int
    """Rows behind the false-positive rate."""
    harmful: int
    """Rows behind the recall."""
    unscored: int
    """Rows without a finite score; they count as flagged."""
    sources: tuple[SourceRate, ...] = ()
    """The same by source, where sources were given."""


def to_logits(scores: np.ndarray) -> np.ndarray:
    """Return the log-odds of scores in [0, 1], (N,); the ends are moved in by one rounding step, NaN stays.

    Example:
        >>> to_logits(np.array([0.5, 0.75])).round(4).tolist()
        [0.0, 1.0986]
    """
    step = np.finfo(np.float64).eps
    inside = np.clip(np.asarray(scores, dtype=np.float64), step, 1 - step)
    return np.log(inside) - np.log1p(-inside)


def to_scores(logits: np.ndarray) -> np.ndarray:
    """Return the sigmoid of logits, (N,), without overflow."""
    with np.errstate(invalid="ignore"):  # NaN stays NaN, without a word
        return np.exp(-np.logaddexp(0.0, -np.asarray(logits, dtype=np.float64)))


def change_temperature(scores: np.ndarray, old: float, new: float) -> np.ndarray:
    """Return what scores made at one temperature are at another, (N,); NaN stays.

    Example:
        >>> change_temperature(np.array([0.2, 0.5]), 2.0, 1.0).round(4).tolist()
        [0.0588, 0.5]
    """
    return to_scores(to_logits(scores) * old / new)


def negative_log_likelihood(logits: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    """Return the mean of -log p(label) under sigmoid(logit / temperature).

    Example:
        >>> round(negative_log_likelihood(np.array([0.0, 0.0]), np.array([True, False]), 1.0), 4)
        0.6931
    """
    signed = np.where(labels, logits, -np.asarray(logits)) / temperature
    return float(np.logaddexp(0.0, -signed).mean())


def fit_temperature(logits: Sequence[float] | np.ndarray, labels: Sequence[bool] | np.ndarray) -> float:
    """Return the temperature that makes the labels likeliest (temperature scaling, arXiv 1706.04599, section 4.2).

    The likelihood has one maximum in 1 / temperature, so golden-section search over its logarithm finds it.

    Args:
        logits: Harm logits at temperature 1, positive = harmful, (N,). Rows without a finite one are left out.
        labels: True = harmful, (N,).

    Returns:
        A temperature in [0.05, 20]; an end of the range when the optimum lies outside.

    Raises:
        ValueError: When a class has no finite logit.
    """
    values, truth = np.asarray(logits, dtype=np.float64), np.asarray(labels, dtype=bool)
    known = np.isfinite(values)
    values, truth = values[known], truth[known]
    if not 0 < truth.sum() < len(truth):
        raise ValueError("the temperature needs harmful and harmless rows that can be scored")
    ratio = (math.sqrt(5) - 1) / 2
    low, high = LOG_TEMPERATURES
    for _ in range(SEARCH_STEPS):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if negative_log_likelihood(values, truth, math.exp(left)) <= negative_log_likelihood(
            values, truth, math.exp(right)
        ):
            high = right
        else:
            low = left
    return math.exp((low + high) / 2)


def expected_calibration_error(scores: np.ndarray, labels: np.ndarray, bins: int = BINS) -> float:
    """Return the mean distance between score and share of harmful, over bins of equal width (arXiv 1706.04599, eq. 3).

    Args:
        scores: Harm scores in [0, 1], (N,).
        labels: True = harmful, (N,).
        bins: How many bins.

    Returns:
        The error in [0, 1]; NaN without rows.

    Example:
        >>> labels = np.array([True, False, True, True])
        >>> round(expected_calibration_error(np.array([0.6, 0.6, 0.6, 0.6]), labels), 6)
        0.15
    """
    which = np.minimum((scores * bins).astype(int), bins - 1)
    gaps = [abs(scores[which == b].mean() - labels[which == b].mean()) * (which == b).sum() for b in np.unique(which)]
    return float(sum(gaps) / len(scores)) if len(scores) else math.nan


def calibrate_scores(
    scores: np.ndarray,
    labels: np.ndarray,
    benign: np.ndarray,
    rate: float,
    temperature: float = 1.0,
    by_source: SourceLimits | None = None,
) -> Calibration:
    """Return temperature and threshold for scores that were made at the temperature given.

    Args:
        scores: Harm scores in [0, 1], (N,).
        labels: True = harmful, (N,).
        benign: Harmless rows that the false-positive rate is about, (N,).
        rate: Largest share of those to flag.
        temperature: The one behind `scores`.
        by_source: Limits of the sources; None has none.

    Raises:
        ValueError: As `fit_temperature` and `threshold_for_fpr`.
    """
    found = round(fit_temperature(to_logits(scores) * temperature, labels), 4)
    return measure_threshold(
        scores, change_temperature(scores, temperature, found), labels, benign, rate, found, by_source
    )


def choose_threshold(
    scores: np.ndarray,
    labels: np.ndarray,
    benign: np.ndarray,
    rate: float,
    by_source: SourceLimits | None = None,
) -> Calibration:
    """Return the threshold for scores that stay as they are: those of a guard without a temperature.

    The arguments and errors are those of `calibrate_scores`; the temperature is 1.
    """
    return measure_threshold(scores, scores, labels, benign, rate, 1.0, by_source)


def measure_threshold(
    before: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    benign: np.ndarray,
    rate: float,
    temperature: float,
    by_source: SourceLimits | None = None,
) -> Calibration:
    """Return the threshold for scores in [0, 1], (N,), and what it does to them.

    Args:
        before: The scores as they were, (N,).
        scores: The scores at the new temperature, (N,).
        labels: True = harmful, (N,).
        benign: Harmless rows that the false-positive rate is about, (N,).
        rate: Largest share of those to flag.
        temperature: The new one.
        by_source: Limits of the sources: the strictest of all decides.
    """
    used = benign | labels
    point = threshold_for_fpr(scores[used], labels[used], rate)
    if by_source:
        strictest = strictest_point(scores, labels, by_source.sources, by_source.limits)
        point = max(point, strictest or point, key=lambda one: one.threshold)
    point = round_up(point, scores[used], labels[used])
    sources = (
        rates_by_source(scores, labels, by_source.sources, point.threshold, rate, by_source.limits) if by_source else ()
    )
    known = np.isfinite(before)

    def ece(values: np.ndarray) -> float:
        return expected_calibration_error(values[known], labels[known])

    return Calibration(
        threshold=point.threshold,
        temperature=temperature,
        false_positive_rate=point.false_positive_rate,
        recall=point.recall,
        ece_before=ece(before),
        ece_after=ece(scores),
        harmless=int(benign.sum()),
        harmful=int(labels.sum()),
        unscored=int((~known).sum()),
        sources=sources,
    )
