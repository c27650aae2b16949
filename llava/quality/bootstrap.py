"""Intervals by the bootstrap: questions are drawn with replacement, and all resamples are computed at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

RESAMPLES = 1000
ROUND = 100
"""Resamples that are computed together; more would only take more memory."""
LEAST_DEFINED = 0.95
"""Share of the resamples in which a figure must be defined for its interval to describe it."""

Floats = npt.NDArray[np.float64]


def bootstrap_intervals(
    measure: Callable[[Floats], dict[str, Floats]],
    groups: npt.NDArray[np.int64],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, list[float] | None]:
    """Return the 95% interval of each figure, `[low, high]`; None where it is not defined.

    Args:
        measure: Maps how often each row counts, (R, N), to figures by name, (R,) each, NaN where one is not defined.
        groups: Number of each row's question: answers to one question are not independent, so it is drawn with all its
            rows, (N,).
        resamples: How many draws.
        seed: Seed of the draws.

    Example:
        >>> values = np.array([0.0, 1.0] * 50)
        >>> found = bootstrap_intervals(lambda weights: {"mean": weights @ values / weights.sum(1)}, np.arange(100))
        >>> [round(bound, 1) for bound in found["mean"]]
        [0.4, 0.6]
    """
    drawn = [measure(weights) for weights in draw_weights(groups, resamples, seed)]
    return {name: interval(np.concatenate([each[name] for each in drawn])) for name in drawn[0]}


def number_groups(names: Sequence[str] | npt.NDArray[np.str_]) -> npt.NDArray[np.int64]:
    """Return a number for each name, from 0, the same for the same name.

    Example:
        >>> number_groups(["b", "a", "b"]).tolist()
        [1, 0, 1]
    """
    _, numbers = np.unique(np.asarray(names, dtype=object).astype(str), return_inverse=True)
    return numbers.reshape(-1)


def interval(values: Floats) -> list[float] | None:
    """Return the middle 95% of a figure over resamples; None where it is not defined in too many of them.

    Example:
        >>> [round(bound, 3) for bound in interval(np.arange(101) / 100)], interval(np.array([np.nan, 1.0]))
        ([0.025, 0.975], None)
    """
    known = values[np.isfinite(values)]
    if len(known) < LEAST_DEFINED * len(values):
        return None
    low, high = np.percentile(known, [2.5, 97.5])
    return [float(low), float(high)]


def draw_weights(groups: npt.NDArray[np.int64], resamples: int, seed: int) -> Iterator[Floats]:
    """Give how often each row is drawn when groups are drawn with replacement, (R, N) in several rounds."""
    generator = np.random.default_rng(seed)
    count = int(groups.max()) + 1 if len(groups) else 0
    for start in range(0, resamples, ROUND):
        size = min(ROUND, resamples - start)
        drawn = generator.multinomial(count, np.full(count, 1 / count), size=size)  # (R, G)
        yield drawn[:, groups].astype(np.float64)
