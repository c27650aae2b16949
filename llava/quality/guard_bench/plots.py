"""ROC curves of a guard, one for each source, as PNG."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from llava.files import explain_writing
from llava.quality.guard_bench.figures import Scored, compute

logger = logging.getLogger(__name__)

NAME = "roc.png"
INCHES, DOTS = 6.5, 150
MOST_CURVES = 10
"""Sources that are drawn, those with most responses; more could not be told apart."""


def draw_roc(sources: Sequence[tuple[str, Scored]], folder: Path, threshold: float) -> Path | None:
    """Write `roc.png` into a folder.

    Nothing is written, and a line logged, when matplotlib is not installed or no source has both classes.

    Args:
        sources: Names and scored responses.
        folder: Where to write; it must exist.
        threshold: Score whose point is marked on each curve.

    Returns:
        The file, or None.
    """
    path = folder / NAME
    both = [(name, data) for name, data in sources if 0 < data.labels.sum() < len(data)]
    if importlib.util.find_spec("matplotlib") is None or not both:
        why = "no source has harmful and harmless responses" if not both else "pip install matplotlib"
        logger.info("no ROC curves: %s", why)
        path.unlink(missing_ok=True)  # it would show former scores
        return None
    from matplotlib.figure import Figure

    # A figure of its own, not pyplot: no global state, no display.
    figure = Figure(figsize=(INCHES, INCHES), dpi=DOTS, layout="constrained")
    axes = figure.add_subplot(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.plot([0, 1], [0, 1], color="0.7", linestyle="--", linewidth=1)
    kept = sorted(both, key=lambda item: -len(item[1]))[:MOST_CURVES]
    for name, data in (item for item in both if item in kept):
        false, found = curve(data)
        area = float(compute(data, np.ones((1, len(data))), threshold)["auroc"][0])
        (line,) = axes.plot(false, found, linewidth=1.3, label=f"{name} ({area:.3f})")
        flagged = data.scores >= threshold
        point = float(flagged[~data.labels].mean()), float(flagged[data.labels].mean())
        axes.plot(*point, "o", color=line.get_color(), markersize=4, clip_on=False)
    title = f"ROC by source, with AUROC; dots: threshold {threshold:.3f}"
    axes.set(xlabel="false-positive rate", ylabel="recall", title=title)
    axes.legend(loc="lower right", frameon=False, fontsize=8)
    partial = path.with_name(f".{NAME}.tmp")
    with explain_writing(path):
        figure.savefig(partial, format="png")
        partial.replace(path)
    return path


def curve(data: Scored) -> tuple[list[float], list[float]]:
    """Return false-positive rate and recall at each distinct score from above the highest down.

    Example:
        >>> curve(Scored.build([True, False, True], [0.9, 0.5, 0.5], ["a", "b", "c"]))
        ([0.0, 0.0, 1.0], [0.0, 0.5, 1.0])
    """
    order = np.argsort(-data.scores, kind="stable")
    ranked, labels = data.scores[order], data.labels[order]
    ends = np.flatnonzero(np.concatenate([ranked[1:] != ranked[:-1], [True]]))
    found, false = np.cumsum(labels)[ends], np.cumsum(~labels)[ends]
    return [0.0, *(false / false[-1]).tolist()], [0.0, *(found / found[-1]).tolist()]
