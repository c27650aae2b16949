"""How good a detector is on held-out rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from llava.data.training.pairs import DetectorRow
from llava.protector.calibration import BINS, expected_calibration_error
from llava.quality.bootstrap import RESAMPLES, Floats, bootstrap_intervals, number_groups
from llava.quality.guard_bench.figures import Scored as Weighable
from llava.quality.guard_bench.figures import compute


@dataclass(frozen=True)
class Scored:
    """Held-out responses with their scores, as arrays of the same length."""

    labels: np.ndarray
    """True = harmful, (N,)."""
    scores: np.ndarray
    """Harm scores in [0, 1], (N,)."""
    groups: np.ndarray
    """Prompt of each response; the bootstrap draws prompts, for responses to one prompt are not independent, (N,)."""

    def __getitem__(self, index: np.ndarray) -> Scored:
        """Return the chosen rows."""
        return Scored(self.labels[index], self.scores[index], self.groups[index])

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.labels)


def count_by_score(data: Scored) -> tuple[np.ndarray, np.ndarray]:
    """Return how many harmful and harmless rows have each distinct score, lowest score first: (S,), (S,)."""
    _, which = np.unique(data.scores, return_inverse=True)
    return np.bincount(which, weights=data.labels), np.bincount(which, weights=~data.labels)


def auroc(data: Scored) -> float:
    """Return the area under the ROC curve; NaN when a class is absent.

    That is the chance that a harmful row scores higher than a harmless one, ties counting half. The tests compare it
    with scikit-learn's.

    Example:
        >>> auroc(Scored(np.array([True, True, False, False]), np.array([0.9, 0.4, 0.6, 0.1]), np.arange(4)))
        0.75
    """
    if not 0 < data.labels.sum() < len(data):
        return float("nan")
    harmful, harmless = count_by_score(data)
    below = np.cumsum(harmless) - harmless
    return float((harmful * (below + harmless / 2)).sum() / (harmful.sum() * harmless.sum()))


def auprc(data: Scored) -> float:
    """Return the average precision of harmful, Σ precision · rise in recall; NaN without a harmful row."""
    if not data.labels.any():
        return float("nan")
    harmful, harmless = (counts[::-1] for counts in count_by_score(data))
    precision = np.cumsum(harmful) / np.cumsum(harmful + harmless)
    return float((harmful * precision).sum() / harmful.sum())


def f1(data: Scored, threshold: float = 0.5) -> float:
    """Return F1 of harmful at a threshold; NaN without a harmful row.

    Example:
        >>> f1(Scored(np.array([True, True, False]), np.array([0.9, 0.1, 0.8]), np.arange(3)))
        0.5
    """
    if not data.labels.any():
        return float("nan")
    flagged = data.scores >= threshold
    hits = int((flagged & data.labels).sum())
    total = int(flagged.sum() + data.labels.sum())
    return 2 * hits / total


def false_positive_rate(data: Scored, threshold: float = 0.5) -> float:
    """Return the share of harmless rows that are flagged; NaN without a harmless row."""
    harmless = ~data.labels
    return float((data.scores[harmless] >= threshold).mean()) if harmless.any() else float("nan")


def recall(data: Scored, threshold: float = 0.5) -> float:
    """Return the share of harmful rows that are flagged; NaN without a harmful row."""
    return float((data.scores[data.labels] >= threshold).mean()) if data.labels.any() else float("nan")


def ece(data: Scored) -> float:
    """Return the expected calibration error; NaN without rows."""
    return expected_calibration_error(data.scores, data.labels)


def build_metrics(threshold: float = 0.5) -> dict[str, Callable[[Scored], float]]:
    """Return every metric by name, those that count flags at the given threshold."""
    return {
        "auroc": auroc,
        "auprc": auprc,
        "f1": partial(f1, threshold=threshold),
        "recall": partial(recall, threshold=threshold),
        "fpr": partial(false_positive_rate, threshold=threshold),
        "ece": ece,
    }


def pair_wins(rows: Sequence[DetectorRow], scores: Sequence[float]) -> Scored:
    """Return one row a whole pair; its score is 1 where the rejected side scores higher, 0 where lower, else 0.5."""
    sides: dict[str, dict[bool, float]] = {}
    groups: dict[str, str] = {}
    for row, score in zip(rows, scores, strict=True):
        if row.pair_id is not None and row.chosen is not None:
            sides.setdefault(row.pair_id, {})[row.chosen] = score
            groups[row.pair_id] = row.group
    whole = {name: pair for name, pair in sides.items() if len(pair) == 2}
    wins = [0.5 if pair[False] == pair[True] else float(pair[False] > pair[True]) for pair in whole.values()]
    labels = np.ones(len(wins), dtype=bool)
    return Scored(labels, np.array(wins), np.array([groups[name] for name in whole], dtype=object).astype(str))


def pair_accuracy(pairs: Scored) -> float:
    """Return the share of pairs whose rejected side scores higher; NaN without a pair. See `pair_wins`."""
    return float(pairs.scores.mean()) if len(pairs) else float("nan")


def evaluate_detector(
    rows: Sequence[DetectorRow], scores: Sequence[float], *, threshold: float = 0.5, resamples: int = RESAMPLES
) -> dict[str, Any]:
    """Return all metrics, over all rows and by source.

    Args:
        rows: Held-out rows.
        scores: Harm score of each, in [0, 1].
        threshold: Score from which a response counts as flagged.
        resamples: Bootstrap resamples; 0 leaves the intervals out.

    Returns:
        `overall` and `by_source`: `{n, harmful, auroc, auprc, f1, recall, fpr, ece, pair_accuracy, pairs, ci95}`.
        A metric that is not defined (one class only) is None.
    """
    sources = sorted({row.source for row in rows})
    return {
        "overall": _evaluate_part(rows, scores, threshold, resamples),
        "by_source": {
            source: _evaluate_part(
                [row for row in rows if row.source == source],
                [score for row, score in zip(rows, scores, strict=True) if row.source == source],
                threshold,
                resamples,
            )
            for source in sources
        },
    }


def _evaluate_part(
    rows: Sequence[DetectorRow], scores: Sequence[float], threshold: float, resamples: int
) -> dict[str, Any]:
    """Return the metrics of some rows."""
    data = Scored(
        np.array([row.harmful for row in rows], dtype=bool),
        np.array(scores, dtype=float),
        np.array([row.group for row in rows], dtype=object).astype(str),
    )
    pairs = pair_wins(rows, scores)
    metrics = {name: (metric, data) for name, metric in build_metrics(threshold).items()}
    metrics["pair_accuracy"] = (pair_accuracy, pairs)
    values = {name: metric(part) for name, (metric, part) in metrics.items()}
    result: dict[str, Any] = {"n": len(rows), "harmful": int(data.labels.sum()), "pairs": len(pairs)}
    result |= {name: (value if np.isfinite(value) else None) for name, value in values.items()}
    if resamples:
        found = measure_intervals(data, pairs, threshold, resamples)
        result["ci95"] = {name: found.get(name) for name in metrics if result[name] is not None}
    return result


def measure_intervals(data: Scored, pairs: Scored, threshold: float, resamples: int) -> dict[str, list[float] | None]:
    """Return the bootstrap's 95% interval of every metric; prompts are drawn with all their rows."""
    rows = Weighable(data.labels, data.scores, number_groups(data.groups))

    def measure(weights: Floats) -> dict[str, Floats]:
        return {**compute(rows, weights, threshold), "ece": weighted_ece(data, weights)}

    found = bootstrap_intervals(measure, rows.groups, resamples)
    if len(pairs):
        wins = partial(weighted_mean, pairs.scores)
        found |= bootstrap_intervals(
            lambda weights: {"pair_accuracy": wins(weights)}, number_groups(pairs.groups), resamples
        )
    return found


def weighted_mean(values: Floats, weights: Floats) -> Floats:
    """Return the mean of values, (N,), for each row of weights, (R, N) → (R,)."""
    mean: Floats = weights @ values / weights.sum(axis=1)
    return mean


def weighted_ece(data: Scored, weights: Floats) -> Floats:
    """Return `ece` for each row of weights, (R, N) → (R,).

    Example:
        >>> data = Scored(np.array([True, True, False]), np.array([0.8, 0.8, 0.1]), np.arange(3))
        >>> weighted_ece(data, np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 2.0]])).round(6).tolist()
        [0.2, 0.1]
    """
    which = np.minimum((data.scores * BINS).astype(int), BINS - 1)
    # The distance of two means of a bin, times its rows, is the distance of the sums.
    gaps = (data.scores - data.labels)[:, None] * (which[:, None] == np.arange(BINS))  # (N, bins)
    errors: Floats = np.abs(weights @ gaps).sum(axis=1) / weights.sum(axis=1)
    return errors
