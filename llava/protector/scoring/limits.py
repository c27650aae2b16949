"""False positives by source: what each kind of harmless answer may bear, and what it does bear."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from llava.bounds import BOUNDS
from llava.errors import InputError
from llava.protector.scoring.thresholds import OperatingPoint, threshold_for_fpr

FLAG = "--max-false-positive-rate"


@dataclass(frozen=True)
class SourceRate:
    """What a threshold does to the harmless rows of one source."""

    source: str
    """Name of the source."""
    harmless: int
    """Its harmless rows."""
    false_positive_rate: float
    """Share of them that is flagged."""
    most: float
    """Share that was allowed: the source's own limit, else the one of all rows."""

    @property
    def broken(self) -> bool:
        """Whether more are flagged than allowed."""
        return self.false_positive_rate > self.most


@dataclass(frozen=True)
class SourceLimits:
    """Where rows come from, and what their sources may bear."""

    sources: list[str]
    """Source of each row, (N,)."""
    limits: dict[str, float]
    """Largest share of harmless rows to flag, of the sources that have a limit of their own."""


def parse_limits(items: Sequence[str]) -> tuple[float | None, dict[str, float]]:
    """Read `RATE` (all rows together) and `SOURCE=RATE` (one source).

    Args:
        items: What was given, one limit each.

    Returns:
        The overall limit, None when there is none, and those by source.

    Raises:
        InputError: When one is no rate, or given twice.

    Example:
        >>> parse_limits(["0.02", "vicuna80=0.01"])
        (0.02, {'vicuna80': 0.01})
    """
    overall: float | None = None
    by_source: dict[str, float] = {}
    for item in items:
        source, _, number = item.rpartition("=")
        try:
            rate = float(number)
        except ValueError:
            rate = -1.0
        if not BOUNDS["false_positive_rate"].holds(rate):
            raise InputError(
                f"{FLAG} {item}: write RATE or SOURCE=RATE, the rate {BOUNDS['false_positive_rate'].words}"
            )
        if source in by_source or (not source and overall is not None):
            raise InputError(f"{FLAG} gives {source or 'all rows'} two limits; give one")
        if source:
            by_source[source] = rate
        else:
            overall = rate
    return overall, by_source


def check_sources(limits: Mapping[str, float], sources: Sequence[str], labels: np.ndarray) -> None:
    """Refuse a limit for a source that has no harmless row.

    Raises:
        InputError: Naming the sources that there are.
    """
    known = sorted({source for source, harmful in zip(sources, labels, strict=True) if not harmful})
    for source in limits:
        if source not in known:
            raise InputError(f"{FLAG} names {source}; sources with harmless rows are {', '.join(known)}")


def strictest_point(
    scores: np.ndarray, labels: np.ndarray, sources: Sequence[str], limits: Mapping[str, float]
) -> OperatingPoint | None:
    """Return the operating point that the strictest limit by source asks for; None without limits.

    Args:
        scores: Harm scores, (N,).
        labels: True = harmful, (N,).
        sources: Source of each row, (N,).
        limits: Largest share of harmless rows to flag, by source.

    Raises:
        ValueError: When no threshold up to 1 keeps a limit; the message names the source.
    """
    names, strictest = np.array(sources), None
    for source, rate in limits.items():
        used = labels | (names == source)
        try:
            point = threshold_for_fpr(scores[used], labels[used], rate)
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from None
        if strictest is None or point.threshold > strictest.threshold:
            strictest = point
    return strictest


def rates_by_source(
    scores: np.ndarray,
    labels: np.ndarray,
    sources: Sequence[str],
    threshold: float,
    overall: float,
    limits: Mapping[str, float],
) -> tuple[SourceRate, ...]:
    """Return what a threshold does to each source's harmless rows, by name.

    Args:
        scores: Harm scores, NaN = could not be scored and flagged, (N,).
        labels: True = harmful, (N,).
        sources: Source of each row, (N,).
        threshold: Score from which a row is flagged.
        overall: The limit of all rows together, which a source without one of its own is measured by.
        limits: Limits by source.

    Example:
        >>> scores, labels = np.array([0.1, 0.9, 0.2, 0.9]), np.array([False, False, False, True])
        >>> rates = rates_by_source(scores, labels, ["a", "a", "b", "a"], 0.5, 0.2, {})
        >>> [(rate.source, rate.false_positive_rate, rate.broken) for rate in rates]
        [('a', 0.5, True), ('b', 0.0, False)]
    """
    flagged, names = ~np.isfinite(scores) | (scores >= threshold), np.array(sources)
    found = []
    for source in sorted(set(sources)):
        mine = (names == source) & ~labels
        if mine.any():
            rate = float(flagged[mine].mean())
            found.append(SourceRate(source, int(mine.sum()), rate, limits.get(source, overall)))
    return tuple(found)
