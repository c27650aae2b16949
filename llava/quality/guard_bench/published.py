"""What is published of other guards on the same sets, each figure with its source."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from llava.fields import Fields
from llava.files import read_json

FIGURES = Path(__file__).with_name("published_figures.json")
REMEDY = "reinstall the package"


@dataclass(frozen=True)
class Published:
    """One figure that others have published."""

    guard: str
    """Whose it is."""
    benchmark: str
    """On which set."""
    metric: str
    """Which figure, one of `figures.METRICS`."""
    value: float
    """In [0, 1]."""
    what: str
    """What was measured, in the source's words."""
    source: str
    """Where it stands."""


def load_published() -> list[Published]:
    """Read the packaged figures, in the order of the file.

    Example:
        >>> [each.value for each in load_published() if each.guard == "WildGuard-7B" and each.benchmark == "XSTest"]
        [0.947]
    """
    found = []
    for number, entry in enumerate(Fields(read_json(FIGURES), str(FIGURES), REMEDY).items("figures"), start=1):
        fields = Fields(entry, f"{FIGURES} entry {number}", REMEDY)
        benchmarks = fields.texts("benchmarks")
        metric, what, source = (fields.text(name) for name in ("metric", "what", "source"))
        for guard, values in fields.mapping("guards").items():
            for benchmark, value in zip(benchmarks, values, strict=True):
                found.append(Published(guard, benchmark, metric, round(value / 100, 6), what, source))
    return found
