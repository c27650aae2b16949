"""One measured ratio, and the loop that measures it: both sides in turn, so that a busy machine slows both alike."""

from __future__ import annotations

import importlib.util
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Side = Callable[[int], float]
"""Measures one side once: the number of the repeat in, a value out."""


CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
"""Which seconds count: processor time where the machine is busy with other things, all threads together."""


@dataclass(frozen=True)
class Measurement:
    """Ours against a baseline."""

    name: str
    """What was measured."""
    ours: float
    """Median of our side, in `unit`."""
    baseline: float | None
    """Median of the baseline, in `unit`; None where what it needs is not installed."""
    goal: float
    """The ratio that is promised."""
    unit: str
    """Unit of both sides, such as `questions/s`."""
    repeats: int
    """How often each side was measured."""
    lower_is_better: bool = False
    """Whether a side that has less is the better one, as with seconds and bytes."""
    note: str = ""
    """What else a reader of the figures must know, in a few words."""

    @property
    def ratio(self) -> float | None:
        """How many times better ours is than the baseline; None without a baseline.

        Example:
            >>> Measurement("size", 2.0, 6.0, 2.0, "GiB", 1, lower_is_better=True).ratio
            3.0
        """
        if self.baseline is None:
            return None
        return self.baseline / self.ours if self.lower_is_better else self.ours / self.baseline

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form; a note stands there only where there is one.

        Example:
            >>> Measurement("speed", 12.0, 2.0, 5.0, "questions/s", 3).to_dict()["holds"]
            True
        """
        ratio = self.ratio
        row = {
            "name": self.name,
            "ours": self.ours,
            "baseline": self.baseline,
            "ratio": ratio,
            "goal": self.goal,
            "holds": None if ratio is None else ratio >= self.goal,
            "unit": self.unit,
            "repeats": self.repeats,
        }
        return row | {"note": self.note} if self.note else row


def compare(
    name: str,
    ours: Side,
    baseline: Side,
    *,
    goal: float,
    unit: str,
    repeats: int,
    lower_is_better: bool = False,
    note: str = "",
    needs: str | None = None,
) -> Measurement:
    """Measure both sides in turn, as often as asked, and return the medians.

    Args:
        name: What is measured.
        ours: Measures our side once; gets the number of the repeat, returns a value in `unit`.
        baseline: The same for the baseline.
        goal: The ratio that is promised.
        unit: Unit of both values.
        repeats: How often each side is measured.
        lower_is_better: Whether less is better, as with seconds and bytes.
        note: What else a reader must know.
        needs: Package of the baseline. Where it is not installed our side is measured alone, and the note says so.
    """
    values: dict[str, list[float]] = {"ours": [], "baseline": []}
    there = needs is None or importlib.util.find_spec(needs) is not None
    for repeat in range(repeats):
        sides = [("ours", ours), ("baseline", baseline)] if there else [("ours", ours)]
        # Who goes first changes: whatever drifts (caches, clock, other load) favours neither side.
        for side, measure in sides if repeat % 2 == 0 else sides[::-1]:
            values[side].append(measure(repeat))
            print(f"{name} {repeat + 1}/{repeats} {side}: {values[side][-1]:.3f} {unit}", file=sys.stderr, flush=True)
    if not there:
        note = f"{note}; {needs} is not installed" if note else f"{needs} is not installed"
    return Measurement(
        name,
        statistics.median(values["ours"]),
        statistics.median(values["baseline"]) if there else None,
        goal,
        unit,
        repeats,
        lower_is_better,
        note,
    )
