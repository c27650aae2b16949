"""A detector's figures beside its checkpoint: after training, and again once it is calibrated.

Calibration belongs to the protector, the figures to training; `calibrate_with_figures`, which `mllm-protector
calibrate` runs, joins the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llava.files import write_json, write_jsonl
from llava.protector.calibrate import calibrate_detector
from llava.quality.metrics import evaluate_detector
from llava.quality.plots import CALIBRATION_NAME, ROC_NAME, plot_evaluation

if TYPE_CHECKING:
    from llava.data.training.pairs import DetectorRow
    from llava.protector.calibration import Calibration

METRICS_NAME, SCORES_NAME = "metrics.json", "held_out_scores.jsonl"


def write_figures(
    folder: str | Path,
    rows: Sequence[DetectorRow],
    scores: Sequence[float] | np.ndarray,
    threshold: float = 0.5,
    temperature: float = 1.0,
) -> dict[str, Any]:
    """Write `metrics.json`, `held_out_scores.jsonl` (no texts), `roc.png` and `calibration.png` into a folder.

    Args:
        folder: The checkpoint; what former figures it has is replaced.
        rows: Rows that the detector was not trained on.
        scores: Harm score of each in [0, 1], (N,). One that could not be scored (NaN) counts as 1, for it is flagged.
        threshold: Score from which a response counts as flagged.
        temperature: The one behind the scores, which is recorded.

    Returns:
        What `metrics.json` holds: `threshold`, `temperature`, and what `evaluate_detector` returns.
    """
    place = Path(folder)
    values = np.nan_to_num(np.asarray(scores, dtype=np.float64), nan=1.0).tolist()
    metrics = {
        "threshold": threshold,
        "temperature": temperature,
        **evaluate_detector(rows, values, threshold=threshold),
    }
    write_json(place / METRICS_NAME, metrics)
    write_jsonl(
        place / SCORES_NAME,
        (
            {
                "source": row.source,
                "harmful": row.harmful,
                "pair_id": row.pair_id,
                "chosen": row.chosen,
                "harm_score": score,
            }
            for row, score in zip(rows, values, strict=True)
        ),
    )
    drawn = plot_evaluation([row.harmful for row in rows], values, place, threshold)
    for name in (ROC_NAME, CALIBRATION_NAME):
        if place / name not in drawn:
            (place / name).unlink(missing_ok=True)  # it would show former scores
    return metrics


def calibrate_with_figures(detector: str, data: str, false_positive_rate: float, **options: Any) -> Calibration:
    """Calibrate a detector and write its figures at the new threshold and temperature into the same folder.

    Args:
        detector: `embedded`, a folder or a hub id.
        data: Labelled rows that it was not trained on; the figures are of these rows too.
        false_positive_rate: Largest share of harmless rows to flag.
        options: As `llava.protector.calibrate.calibrate_detector`.

    Raises:
        InputError: As `calibrate_detector`.
    """
    return calibrate_detector(detector, data, false_positive_rate, write_figures=write_figures, **options)
