"""The threshold of the embedded detector, on prompts that the second step leaves out and that are not measured.

The first step was trained on some of them (JailbreakBench's and vicuna80's), so rates there look a little too good.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from llava.data.training.pairs import DetectorRow
from llava.fields import Fields
from llava.options import read_options
from llava.protector.calibration import Calibration, calibrate_scores
from llava.protector.config import ProtectorConfig
from llava.protector.detector import HarmDetector
from llava.protector.scoring.limits import SourceLimits
from llava.quality.detector_rows import load_rows
from llava.train.embedded.selection import choose_rows


@dataclass(frozen=True)
class Choice:
    """What the recipe says of the threshold."""

    sizes: dict[tuple[str, bool], int]
    """Rows of each (group, label) of the dev side."""
    limits: dict[str, float]
    """Largest share of a group's harmless rows to flag."""
    overall: float
    """The same of all of them together."""


def read_choice(path: Path) -> Choice:
    """Read `dev_rows`, `limits` and `false_positive_rate` of a recipe.

    Raises:
        InputError: When one is missing or of the wrong kind.
    """
    found = Fields(read_options(path, nested=("groups", "dev_rows", "limits")), str(path))
    sizes = {
        (group, label == "harmful"): int(count)
        for group, labels in found.mapping("dev_rows").items()
        for label, count in labels.items()
    }
    limits = {group: float(rate) for group, rate in found.mapping("limits").items()}
    return Choice(sizes, limits, found.number("false_positive_rate", least=0, most=0.99))


def choose_dev_rows(data: Path, choice: Choice) -> list[DetectorRow]:
    """Return the rows of the dev side that the threshold is chosen on."""
    return choose_rows([keyed for keyed in load_rows(data) if keyed.side == "dev"], choice.sizes)


def calibrate_rows(
    rows: Sequence[DetectorRow], scores: Sequence[float], temperature: float, choice: Choice
) -> Calibration:
    """Return temperature and threshold: the strictest limit decides.

    Args:
        rows: The rows.
        scores: Their harm scores.
        temperature: The one behind the scores.
        choice: The limits.
    """
    labels = np.array([row.harmful for row in rows], dtype=bool)
    sources = [row.source for row in rows]
    present: Mapping[str, float] = {name: rate for name, rate in choice.limits.items() if name in sources}
    limits = SourceLimits(sources, dict(present))
    return calibrate_scores(np.array(scores), labels, ~labels, choice.overall, temperature, limits)


def set_threshold(adapter: Path, data: Path, choice: Choice) -> Calibration:
    """Choose temperature and threshold of an adapter and write both into its `protector_config.json`."""
    rows = choose_dev_rows(data, choice)
    detector = HarmDetector.from_pretrained(adapter, dtype="float32")
    scores = detector.score([row.response for row in rows], [row.prompt for row in rows])
    found = calibrate_rows(rows, scores, detector.config.temperature, choice)
    config = ProtectorConfig.load(adapter, "detector")
    replace(config, threshold=found.threshold, temperature=found.temperature).save(adapter)
    return found
