"""Pictures of a detector's held-out figures: ROC curve and calibration, as PNG."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from llava.protector.calibration import BINS
from llava.quality.metrics import Scored, auroc, count_by_score, ece

if TYPE_CHECKING:
    from matplotlib.axes import Axes

logger = logging.getLogger(__name__)

ROC_NAME, CALIBRATION_NAME = "roc.png", "calibration.png"
INCHES, DOTS = 4.5, 150


def plot_evaluation(
    labels: Sequence[bool] | np.ndarray,
    scores: Sequence[float] | np.ndarray,
    folder: str | Path,
    threshold: float = 0.5,
) -> list[Path]:
    """Write `roc.png` and `calibration.png` into a folder.

    Nothing is written, and a line logged, when matplotlib is not installed or a class is absent: pictures are an extra,
    and training must not fail over them. Rows without a finite score are left out.

    Args:
        labels: True = harmful, (N,).
        scores: Harm scores in [0, 1], (N,).
        folder: Where to write; it must exist.
        threshold: Score whose point on the ROC curve is marked.

    Returns:
        The files written.
    """
    if importlib.util.find_spec("matplotlib") is None:
        logger.info("no plots: matplotlib is not installed (pip install matplotlib)")
        return []
    truth, values = np.asarray(labels, dtype=bool), np.asarray(scores, dtype=np.float64)
    known = np.isfinite(values)
    data = Scored(truth[known], values[known], np.arange(int(known.sum())))
    if not 0 < data.labels.sum() < len(data):
        logger.info("no plots: the held-out rows are all of one class")
        return []
    from matplotlib.figure import Figure

    written = []
    for name, draw in ((ROC_NAME, _draw_roc), (CALIBRATION_NAME, _draw_calibration)):
        # A figure of its own, not pyplot: no global state, no display.
        figure = Figure(figsize=(INCHES, INCHES), dpi=DOTS, layout="constrained")
        axes = figure.add_subplot(xlim=(0, 1), ylim=(0, 1), aspect="equal")
        axes.plot([0, 1], [0, 1], color="0.7", linestyle="--", linewidth=1)
        draw(axes, data, threshold)
        axes.legend(loc="lower right" if name == ROC_NAME else "upper left", frameon=False)
        path = Path(folder) / name
        partial = path.with_name(f".{name}.tmp")
        figure.savefig(partial, format="png")
        partial.replace(path)
        written.append(path)
    return written


def roc_curve(data: Scored) -> tuple[np.ndarray, np.ndarray]:
    """Return false-positive rate and recall at every distinct score from above the highest down, (S + 1,) each.

    Example:
        >>> data = Scored(np.array([True, False, True]), np.array([0.9, 0.5, 0.5]), np.arange(3))
        >>> [rates.tolist() for rates in roc_curve(data)]
        [[0.0, 0.0, 1.0], [0.0, 0.5, 1.0]]
    """
    harmful, harmless = (np.concatenate([[0.0], np.cumsum(counts[::-1])]) for counts in count_by_score(data))
    return harmless / harmless[-1], harmful / harmful[-1]


def reliability(data: Scored, bins: int = BINS) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mean score, share of harmful and number of rows of each bin that has any, lowest first.

    Example:
        >>> data = Scored(np.array([True, False, True]), np.array([0.9, 0.1, 0.8]), np.arange(3))
        >>> [numbers.round(2).tolist() for numbers in reliability(data, bins=2)]
        [[0.1, 0.85], [0.0, 1.0], [1, 2]]
    """
    which = np.minimum((data.scores * bins).astype(int), bins - 1)
    counts = np.bincount(which, minlength=bins)
    used = counts > 0
    means = np.bincount(which, weights=data.scores, minlength=bins)[used] / counts[used]
    shares = np.bincount(which, weights=data.labels, minlength=bins)[used] / counts[used]
    return means, shares, counts[used]


def _draw_roc(axes: Axes, data: Scored, threshold: float) -> None:
    """Draw the ROC curve and the point of the threshold."""
    axes.plot(*roc_curve(data), linewidth=1.5, label=f"AUROC {auroc(data):.3f}")
    flagged = data.scores >= threshold
    point = float(flagged[~data.labels].mean()), float(flagged[data.labels].mean())
    axes.plot(*point, "o", color="C1", clip_on=False, label=f"threshold {threshold:.3f}")
    axes.set(xlabel="false-positive rate", ylabel="recall", title=f"ROC, {len(data)} held-out rows")


def _draw_calibration(axes: Axes, data: Scored, threshold: float) -> None:
    """Draw the share of harmful against the score, a dot's area by the rows behind it."""
    means, shares, counts = reliability(data)
    # No line from dot to dot: between bins of thousands and bins of two it would draw noise.
    label = f"calibration error {ece(data):.2f}"
    axes.scatter(means, shares, s=10 + 190 * counts / counts.max(), alpha=0.6, clip_on=False, label=label)
    axes.axvline(threshold, color="C1", linewidth=1, label=f"threshold {threshold:.3f}")
    axes.set(xlabel="harm score", ylabel="share of harmful rows", title=f"Calibration, {len(data)} held-out rows")
