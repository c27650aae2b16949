"""One measured ratio, and the loop that measures it: both sides in turn, so that a busy machine slows both alike."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Measurement:
    """Ours against a baseline; higher is better on both sides."""

    name: str
    """What was measured."""
    ours: float
    """Median of our side, in `unit`."""
    baseline: float
    """Median of the baseline, in `unit`."""
    goal: float
    """The ratio that is promised."""
    unit: str
    """Unit of both sides, such as `questions/s`."""
    repeats: int
    """How often each side was measured."""

    @property
    def ratio(self) -> float:
        """How many times ours is the baseline."""
        return self.ours / self.baseline

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form.

        Example:
            >>> Measurement("speed", 12.0, 2.0, 5.0, "questions/s", 3).to_dict()["holds"]
            True
        """
        return {
            "name": self.name,
            "ours": self.ours,
            "baseline": self.baseline,
            "ratio": self.ratio,
            "goal": self.goal,
            "holds": self.ratio >= self.goal,
            "unit": self.unit,
            "repeats": self.repeats,
        }


def compare(
    name: str,
    ours: Callable[[int], float],
    baseline: Callable[[int], float],
    *,
    goal: float,
    unit: str,
    repeats: int,
) -> Measurement:
    """Measure both sides in turn, as often as asked, and return the medians.

    Args:
        name: What is measured.
        ours: Measures our side once; gets the number of the repeat, returns a value in `unit`.
        baseline: The same for the baseline.
        goal: The ratio that is promised.
        unit: Unit of both values.
        repeats: How often each side is measured.
    """
    values: dict[str, list[float]] = {"ours": [], "baseline": []}
    for repeat in range(repeats):
        sides = [("ours", ours), ("baseline", baseline)]
        # Who goes first changes: whatever drifts (caches, clock, other load) favours neither side.
        for side, measure in sides if repeat % 2 == 0 else sides[::-1]:
            values[side].append(measure(repeat))
            print(f"{name} {repeat + 1}/{repeats} {side}: {values[side][-1]:.3f} {unit}", file=sys.stderr, flush=True)
    medians = {side: statistics.median(each) for side, each in values.items()}
    return Measurement(name, medians["ours"], medians["baseline"], goal, unit, repeats)
