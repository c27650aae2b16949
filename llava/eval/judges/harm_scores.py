"""The distribution of harm scores in a run: where the detector sees its answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llava.data.schema import Record

BINS = 20
"""Equal bins of [0, 1]; each holds its lower end, the last one both."""
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def summarize_scores(records: Sequence[Record]) -> dict[str, Any] | None:
    """Count the harm scores of a run's responses (1 = harmful), apart for harmful and benign questions.

    Returns:
        `harmful` and `benign`, each with `n`, `bins` (counts of `BINS` equal bins of [0, 1]) and `quantiles` (level →
        harm score; None without scores), and `unscored`, the guarded responses without a score. None when nothing was
        scored.
    """
    guards = [(record.question.harmful, record.guard.harm_score) for record in records if record.guard]
    sides = {
        side: sorted(score for is_harmful, score in guards if is_harmful == harmful and score is not None)
        for side, harmful in (("harmful", True), ("benign", False))
    }
    if not any(sides.values()):
        return None
    return {
        **{side: describe_scores(scores) for side, scores in sides.items()},
        "unscored": sum(score is None for _, score in guards),
    }


def describe_scores(scores: Sequence[float]) -> dict[str, Any]:
    """Return number, histogram and quantiles of ascending scores."""
    bins = [0] * BINS
    for score in scores:
        bins[min(BINS - 1, int(score * BINS))] += 1
    quantiles = {f"{level:g}": quantile(scores, level) for level in QUANTILES} if scores else None
    return {"n": len(scores), "bins": bins, "quantiles": quantiles}


def quantile(ascending: Sequence[float], level: float) -> float:
    """Return a quantile by linear interpolation between order statistics (NumPy's default).

    Example:
        >>> quantile([0.0, 1.0, 4.0], 0.25), quantile([0.5], 0.9)
        (0.5, 0.5)
    """
    place = level * (len(ascending) - 1)
    below = int(place)
    above = min(below + 1, len(ascending) - 1)
    return ascending[below] + (place - below) * (ascending[above] - ascending[below])
