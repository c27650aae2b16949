"""The figures of a head on states: alone, in the cascade, and the detector beside it, on the same held-out rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from llava.data.training.pairs import DetectorRow
from llava.protector.states.choice import flag_rows
from llava.quality.bootstrap import RESAMPLES
from llava.quality.detector_groups import JAILJUDGE
from llava.quality.detector_rows import ORDINARY, KeyedRow
from llava.quality.metrics import evaluate_detector

SHOWN = ("auroc", "recall", "fpr", "ci95")
ALL, ALL_ORDINARY = "all", "ordinary"


def measure_stages(
    rows: Sequence[KeyedRow],
    states: Sequence[float],
    detected: Sequence[float],
    *,
    threshold: float,
    detector_threshold: float,
    cascade: tuple[float, float],
    resamples: int = RESAMPLES,
) -> dict[str, Any]:
    """Return the figures of the three ways to judge rows.

    Args:
        rows: Labelled rows.
        states: Score of the head for each; NaN = unknown: flagged by the head alone, in the cascade left to the
            detector.
        detected: Score of the detector for each; NaN is flagged.
        threshold: The head's, where it decides alone.
        detector_threshold: The detector's.
        cascade: The lower and the upper threshold of the cascade.
        resamples: Bootstrap resamples, by the key that rows are split by; 0 leaves the intervals out.

    Returns:
        Group → `n`, `harmful`, and of `head`, `detector` and `cascade` what `SHOWN` names (the cascade, whose scores
        are of two kinds, has no AUROC), and of the cascade `asked`, the share that the detector reads. `ALL` is all
        rows but those of `JAILJUDGE`, `ALL_ORDINARY` the ordinary answers.
    """
    low, high = cascade
    scores, others = np.asarray(states, float), np.asarray(detected, float)
    flagged, asked = flag_rows(scores, ~(others < detector_threshold), low, high)
    sources = np.array([keyed.row.source for keyed in rows])
    parts = {ALL: sources != JAILJUDGE, ALL_ORDINARY: np.isin(sources, ORDINARY)}
    parts |= {source: sources == source for source in dict.fromkeys(sources.tolist())}
    figures = {}
    for name, mine in parts.items():
        if not mine.any():
            continue
        part = [replace(keyed.row, prompt=keyed.key) for keyed, one in zip(rows, mine, strict=True) if one]
        figures[name] = {
            "n": len(part),
            "harmful": sum(row.harmful for row in part),
            "head": measure_part(part, scores[mine], threshold, resamples),
            "detector": measure_part(part, others[mine], detector_threshold, resamples),
            "cascade": {
                **measure_part(part, flagged[mine].astype(float), 0.5, resamples),
                "auroc": None,
                "asked": float(asked[mine].mean()),
            },
        }
    return figures


def measure_part(rows: Sequence[DetectorRow], scores: np.ndarray, threshold: float, resamples: int) -> dict[str, Any]:
    """Return the figures of some rows; what has no score counts as flagged."""
    values = [1.0 if math.isnan(score) else score for score in scores.tolist()]
    found = evaluate_detector(rows, values, threshold=threshold, resamples=resamples)["overall"]
    return {name: found[name] for name in SHOWN if name in found}
