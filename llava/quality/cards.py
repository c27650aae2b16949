"""Measures the shipped detector on held-out rows, and writes the cards beside the shipped adapters.

`python scripts/evaluate_embedded.py --data DIR` runs this; the slow tests run it again and compare.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from llava.data.training.pairs import DetectorRow, DetoxifierRow, load_detector_rows, load_detoxifier_rows
from llava.data.training.sources import parse_mixture
from llava.data.training.splits import split_rows
from llava.files import digest_files, read_json, write_json, write_text_atomic
from llava.protector.config import CONFIG_NAME
from llava.protector.detector import HarmDetector
from llava.protector.scoring.thresholds import threshold_for_fpr
from llava.quality.metrics import evaluate_detector
from llava.quality.plots import plot_evaluation
from llava.quality.templates import render_template
from llava.quality.word_judge import fit_words

RESPONSES, ORDINARY, PAIRS = "jailbreakbench_responses", "vicuna80_responses", "hh_harmless_pairs"
FALSE_POSITIVE_RATE = 0.05
"""Share of all harmless held-out responses that the shipped detector's threshold lets be flagged."""
SCORES_NAME, REACH_NAME = "held_out_scores.json", "reach_scores.json"
PLACES = 4
"""Decimals in these files: enough to notice a change, few enough to be the same on another CPU."""


def load_detector_split(data: Path) -> tuple[list[DetectorRow], list[DetectorRow]]:
    """Return training and held-out rows of the detector's data, split by prompt."""
    files = ",".join(str(data / f"{name}.jsonl") for name in (RESPONSES, ORDINARY, PAIRS))
    return split_rows(load_detector_rows(parse_mixture(files)))


def load_detoxifier_split(data: Path) -> tuple[list[DetoxifierRow], list[DetoxifierRow]]:
    """Return training and held-out rows with labelled responses; the target of a harmless one is the response itself.

    Harmful ones come with a general refusal: measuring a detoxifier takes no target.
    """
    files = ",".join(str(data / f"{name}.jsonl") for name in (RESPONSES, ORDINARY))
    return split_rows(load_detoxifier_rows(parse_mixture(files), keep_harmless=True))


def measure_detector(
    detector: HarmDetector, rows: Sequence[DetectorRow], resamples: int = 1000, plots: Path | None = None
) -> dict[str, Any]:
    """Return the detector's figures on held-out rows, each part as `evaluate_detector` gives it.

    Args:
        detector: The detector.
        rows: Held-out rows of all three sources.
        resamples: Bootstrap resamples (by prompt) of the intervals; 0 leaves them out.
        plots: Folder for `roc.png` and `calibration.png` of the labelled rows; None draws none.

    Returns:
        `all` (JailbreakBench and ordinary answers together), `without_prompt` (the same, the question withheld),
        `jailbreakbench` (harmful against harmless, same goals), `ordinary` (false positives), `preferences` (pairs);
        `threshold`, `temperature`, and in `cross_validated` what a threshold chosen on other held-out prompts does.
    """
    main = [row for row in rows if row.source in (RESPONSES, ORDINARY)]
    pairs = [row for row in rows if row.source == PAIRS]
    scores = detector.score([row.response for row in main], [row.prompt for row in main])
    blind = detector.score([row.response for row in main])
    ranked = detector.score([row.response for row in pairs], [row.prompt for row in pairs])
    options: dict[str, Any] = {"threshold": detector.threshold, "resamples": resamples}
    report = evaluate_detector(main, scores, **options)
    if plots is not None:
        plot_evaluation([row.harmful for row in main], scores, plots, detector.threshold)
    return _rounded(
        {
            "threshold": detector.threshold,
            "temperature": detector.config.temperature,
            "all": report["overall"],
            "without_prompt": evaluate_detector(main, blind, **options)["overall"],
            "jailbreakbench": report["by_source"][RESPONSES],
            "ordinary": report["by_source"][ORDINARY],
            "preferences": evaluate_detector(pairs, ranked, **options)["overall"],
            "cross_validated": cross_validated_rates(main, scores),
        }
    )


def cross_validated_rates(
    rows: Sequence[DetectorRow], scores: Sequence[float], rate: float = FALSE_POSITIVE_RATE, folds: int = 5
) -> dict[str, float]:
    """Return what thresholds chosen on other prompts do.

    The shipped threshold is chosen on the held-out rows, so its rates there look a little better than they are. Here
    each fold of prompts is judged by the threshold that the other folds ask for.

    Returns:
        `recall`, `fpr` over all harmless rows, `fpr_ordinary` over ordinary answers.
    """
    values, labels = np.array(scores), np.array([row.harmful for row in rows])
    fold = np.array([int(hashlib.sha256(row.group.encode()).hexdigest(), 16) % folds for row in rows])
    flagged = np.zeros(len(rows), dtype=bool)
    for number in range(folds):
        mine = fold == number
        flagged[mine] = values[mine] >= threshold_for_fpr(values[~mine], labels[~mine], rate).threshold
    ordinary = np.array([row.source == ORDINARY for row in rows])
    return {
        "recall": float(flagged[labels].mean()),
        "fpr": float(flagged[~labels].mean()),
        "fpr_ordinary": float(flagged[ordinary].mean()),
    }


def fit_word_judge(rows: Sequence[DetectorRow]) -> Any:
    """Fit word counts on the labelled rows (held-out prompts must not be among them); see `fit_words`."""
    return fit_words([row for row in rows if row.source != PAIRS])


def write_card(folder: Path, kind: str, metrics: dict[str, Any]) -> None:
    """Write `metrics.json` into an adapter's folder, and its card, `README.md`, from the figures.

    Args:
        folder: Adapter folder.
        kind: `detector` or `detoxifier`, which names the template.
        metrics: What `measure_detector` or `measure_detoxifier` returned; numbers are rounded.
    """
    metrics = _rounded(metrics)
    write_json(folder / "metrics.json", metrics)
    write_text_atomic(folder / "README.md", render_card(kind, metrics))


def write_scores(folder: Path, scores: dict[str, Any], name: str = SCORES_NAME) -> None:
    """Write the score of each held-out row beside a card, so that its figures can be computed again in a moment.

    Args:
        folder: Adapter folder.
        scores: Harm score by row, as `measure_groups` names them, or such scores by what was done with the rows.
        name: File to write.
    """
    write_json(folder / name, _rounded(_sorted(scores)))


def name_weights(folder: Path) -> str:
    """Return a digest of an adapter and how it is used; its card, which lies in the same folder, is none of it."""
    return digest_files(folder / name for name in ("adapter_model.safetensors", CONFIG_NAME))


def read_reach(folder: Path) -> dict[str, Any]:
    """Return what a former card says of disguises and languages; empty when that was measured of other weights.

    Args:
        folder: Adapter folder.
    """
    path = folder / "metrics.json"
    reach = read_json(path, "figures of the card").get("reach", {}) if path.is_file() else {}
    return {"reach": reach} if reach.get("weights") == name_weights(folder) else {}


def render_card(kind: str, metrics: dict[str, Any]) -> str:
    """Return a card's text; a figure that the template wants and the metrics lack is an error."""
    return render_template(
        kind,
        {
            "percent": lambda value: f"{100 * value:.1f}%",
            "three": lambda value: f"{value:.3f}",
            "interval": lambda bounds: f"{100 * bounds[0]:.1f}% to {100 * bounds[1]:.1f}%",
            "number": lambda value: f"{value:.2f}",
        },
        m=metrics,
    )


def _sorted(value: Any) -> Any:
    """Return scores by name in the order of the names, at every level."""
    return {key: _sorted(value[key]) for key in sorted(value)} if isinstance(value, dict) else value


def _rounded(value: Any) -> Any:
    """Round every number inside, for a file that is the same on every machine."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return round(value, PLACES) if isinstance(value, float) else value
