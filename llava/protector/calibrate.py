"""`mllm-protector calibrate`: gives a detector the threshold and temperature that labelled rows ask for."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from llava.bounds import check_bounds
from llava.errors import InputError
from llava.files import expand_home, explain_writing, write_json
from llava.model.options import LoadOptions, collect_options
from llava.places import check_new_folder, check_output_file, check_output_folder
from llava.protector.calibration import (
    Calibration,
    calibrate_scores,
    change_temperature,
    choose_threshold,
)
from llava.protector.guard import build_guard, is_own_detector
from llava.protector.guards.base import score_responses
from llava.protector.scoring.limits import SourceLimits, check_sources

if TYPE_CHECKING:
    import numpy.typing as npt

    from llava.data.training.pairs import DetectorRow
    from llava.data.training.sources import MixturePart

RowT = TypeVar("RowT", bound="DetectorRow")
REPORT_NAME = "calibration.json"
OLD_FIGURES = ("README.md", "metrics.json", "held_out_scores.jsonl", "roc.png", "calibration.png")
TRAINING_STATE = ("checkpoint-*", "runs")
"""Neither is copied: figures at the former threshold, and what the training left."""


def calibrate_detector(
    detector: str,
    data: str,
    false_positive_rate: float,
    *,
    output: Path | None = None,
    in_place: bool = False,
    benign_source: str | None = None,
    held_out: bool = False,
    limits: Mapping[str, float] | None = None,
    batch_size: int | None = None,
    options: LoadOptions | None = None,
    write_figures: Callable[..., Any] | None = None,
    **keywords: Any,
) -> Calibration:
    """Calibrate a detector on labelled rows that it was not trained on, and write the result.

    A detector of this package gets the threshold and a temperature; both go into its checkpoint's
    `protector_config.json`. Any other guard gets a threshold, to be given as `--threshold` where the guard is used.

    Args:
        detector: Any guard, see `build_guard`.
        data: `FILE,FILE,…`, labelled responses in any form that training reads.
        false_positive_rate: Largest share of harmless rows to flag, in [0, 1).
        output: Folder to make: a copy of the checkpoint with the new settings and `calibration.json`. For a guard that
            is none of ours, the file to write the figures to; None writes nothing.
        in_place: Write both into the checkpoint's own folder instead.
        benign_source: Count only this source's harmless rows for the rate (ordinary answers, say); None takes all.
        held_out: Keep only the rows that training holds out unless told otherwise (`llava/data/training/splits.py`).
        limits: Largest share of a source's harmless rows to flag, by source: no kind of answer then bears the false
            positives of all.
        batch_size: Texts a forward pass; None leaves it to the guard.
        options: How the guard is loaded; None stands for the defaults.
        write_figures: Called with the folder, the rows, their scores at the new temperature, the new threshold and the
            new temperature, to write more about them there (`llava/quality/figures.py`).
        keywords: Fields of `LoadOptions` by name, such as `device` and `dtype`; they win over `options`.

    Raises:
        InputError: When input is missing or unfit, or the place must not be written. Nothing is written then.
    """
    from llava.protector.checkpoints import open_checkpoint
    from llava.protector.detector import HarmDetector

    check_bounds("false_positive_rate", false_positive_rate)
    chosen = collect_options(options, keywords)
    folder = open_checkpoint("detector", detector, chosen.base).folder if is_own_detector(detector) else None
    if folder is not None:
        check_target(folder, Path(detector), output, in_place)
    else:
        check_report_file(detector, output, in_place)
    rows: list[DetectorRow] = read_rows(data, held_out)
    labels, benign = find_classes(rows, data, benign_source)
    by_source = SourceLimits([row.source for row in rows], dict(limits or {}))
    check_sources(by_source.limits, by_source.sources, labels)
    guard = build_guard(detector, chosen, batch_size=batch_size)
    scores = np.array(score_responses(guard, [row.response for row in rows], [row.prompt for row in rows]))
    config = guard.config if isinstance(guard, HarmDetector) else None
    try:
        if config is not None:
            found = calibrate_scores(scores, labels, benign, false_positive_rate, config.temperature, by_source)
        else:
            found = choose_threshold(scores, labels, benign, false_positive_rate, by_source)
    except ValueError as error:
        raise InputError(f"--data {data}: {error}; give other rows or a higher --false-positive-rate") from None
    report = {**dataclasses.asdict(found), "data": sorted({row.source for row in rows}), "benign_source": benign_source}
    report["held_out"] = held_out
    if config is None or folder is None:
        if output is not None:
            write_json(output, {"detector": detector, "identity": guard.identity, **report})
        return found
    calibrated = dataclasses.replace(config, threshold=found.threshold, temperature=found.temperature)

    def write(target: Path) -> None:
        if write_figures is not None:
            scaled = change_temperature(scores, config.temperature, found.temperature)
            write_figures(target, rows, scaled, found.threshold, found.temperature)
        write_json(target / REPORT_NAME, report)
        calibrated.save(target)

    write_calibrated(folder, output, write)
    return found


def find_classes(
    rows: Sequence[DetectorRow], data: str, benign_source: str | None
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Return which rows are harmful, and which harmless ones the false-positive rate is about, (N,) each.

    Raises:
        InputError: When there is no row of one of the two.
    """
    labels = np.array([row.harmful for row in rows], dtype=bool)
    benign = ~labels & np.array([benign_source in (None, row.source) for row in rows], dtype=bool)
    if not benign.any() or not labels.any():
        sources = ", ".join(sorted({row.source for row in rows}))
        where = f" from --benign-source {benign_source}" if benign_source else ""
        lacking = "harmful" if not labels.any() else f"harmless rows{where}; sources are {sources}"
        raise InputError(f"--data {data} has no {lacking}; both classes are needed")
    return labels, benign


def read_rows(
    data: str, held_out: bool = False, load: Callable[[Sequence[MixturePart], Any], list[RowT]] | None = None
) -> list[RowT]:
    """Read the labelled rows of `--data`: all, or those that training holds out.

    Args:
        data: `FILE,FILE,…`.
        held_out: Whether those that training learns from are left out.
        load: Reads the rows of a mixture; None reads those of a detector.
    """
    from llava.data.training.pairs import load_detector_rows
    from llava.data.training.sources import parse_mixture
    from llava.data.training.splits import split_rows

    parts = parse_mixture(data, "--data")
    for part in parts:
        if part.share != 1:
            raise InputError(f"--data gives {part.source} a share; calibration reads every row once, leave it out")
    rows: Any = (load or load_detector_rows)(parts, "test")
    return split_rows(rows)[1] if held_out else rows


def check_target(folder: Path, named: Path, output: Path | None, in_place: bool) -> None:
    """Refuse a place that must not be written, before any model is loaded."""
    from llava.model.embedded.stack import ASSETS

    if (output is None) is not in_place:
        raise InputError("give either --output DIR or --in-place")
    target = folder if output is None else output
    if target.resolve().is_relative_to(ASSETS.resolve()):
        raise InputError(f"{target} belongs to the installed package and stays as it is; choose another --output")
    if output is None:
        if not Path(expand_home(named)).is_dir():
            raise InputError(f"--in-place needs a detector in a folder of yours, not {named}; use --output")
        check_output_folder(folder)
        return
    with explain_writing(output):  # a name may be too long to be looked up, a folder not to be listed
        if output.is_dir() and any(output.iterdir()):
            raise InputError(f"--output {output} exists already; choose a new folder, or --in-place")
    check_new_folder(output)


def check_report_file(detector: str, output: Path | None, in_place: bool) -> None:
    """Refuse a place for the figures of a guard that is none of ours, before any model is loaded."""
    if in_place:
        raise InputError(f"--in-place needs a detector of this package, not {detector}; leave it out")
    if output is not None:
        with explain_writing(output):
            if output.is_dir():
                raise InputError(f"--output {output} is a folder; {detector} gets a file of figures, give its name")
        check_output_file(output)


def write_calibrated(folder: Path, output: Path | None, write: Callable[[Path], None]) -> None:
    """Let `write` fill the checkpoint's folder, or a copy of it that appears only when complete."""
    if output is None:
        write(folder)
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as temporary:
        copy = Path(temporary) / "copy"
        shutil.copytree(folder, copy, ignore=shutil.ignore_patterns(*OLD_FIGURES, *TRAINING_STATE))
        write(copy)
        copy.replace(output)
