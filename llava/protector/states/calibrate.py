"""`mllm-protector calibrate --state-head`: gives a head its threshold, and the cascade of head and detector its two."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from llava.bounds import check_bounds
from llava.data.images import open_image
from llava.data.training.answers import AnswerRow, build_loader
from llava.errors import InputError
from llava.files import write_json
from llava.model.options import LoadOptions
from llava.protector.calibrate import REPORT_NAME, check_target, find_classes, read_rows, write_calibrated
from llava.protector.calibration import Calibration, calibrate_scores, change_temperature
from llava.protector.guard import build_guard
from llava.protector.guards.base import Guard, score_responses
from llava.protector.scoring.limits import SourceLimits, check_sources
from llava.protector.states.choice import RECALL_LOSS, CascadeChoice, choose_cascade
from llava.protector.states.config import Cascade
from llava.protector.states.finding import find_head
from llava.protector.states.head import BATCH_SIZE, StateHead

if TYPE_CHECKING:
    from llava.model.answering.generation import MultimodalModel


@dataclass(frozen=True)
class HeadCalibration:
    """What was chosen for a head."""

    alone: Calibration
    """Temperature and threshold where the head decides alone."""
    cascade: CascadeChoice | None
    """The thresholds of the cascade; None without a detector."""

    def describe(self) -> list[str]:
        """Return it in words, a line each."""
        alone = self.alone
        lines = [
            f"head alone: threshold {alone.threshold:.6f}, temperature {alone.temperature:.4f}",
            f"false positives {alone.false_positive_rate:.2%} of {alone.harmless} harmless rows",
            f"recall {alone.recall:.2%} of {alone.harmful} harmful rows",
        ]
        if (chosen := self.cascade) is not None:
            lines += [
                f"cascade: the detector reads from {chosen.low:.6f} to {chosen.high:.6f}",
                f"that is {chosen.asked:.2%} of the harmless rows, {chosen.asked_all:.2%} of all",
                f"recall {chosen.recall:.2%}, the detector alone {chosen.detector_recall:.2%}",
                f"false positives {chosen.false_positive_rate:.2%}, the detector alone "
                f"{chosen.detector_false_positive_rate:.2%}",
            ]
        return lines


def calibrate_state_head(
    head: str,
    data: str,
    false_positive_rate: float,
    *,
    model: str = "embedded",
    detector: str | None = None,
    detector_base: str | None = None,
    output: Path | None = None,
    in_place: bool = False,
    benign_source: str | None = None,
    held_out: bool = False,
    limits: Mapping[str, float] | None = None,
    recall_loss: float = RECALL_LOSS,
    batch_size: int = BATCH_SIZE,
    options: LoadOptions | None = None,
) -> HeadCalibration:
    """Calibrate a head on labelled rows that it was not trained on, and write the result.

    Args:
        head: `embedded`, a folder or a hub id.
        data: `FILE,FILE,…`, labelled responses in any form that training reads, with an `image` where they have one.
        false_positive_rate: Largest share of harmless rows that the head flags alone, in [0, 1).
        model: The model that the head belongs to: it reads the rows.
        detector: Guard that reads what the head leaves open; None chooses no cascade, and takes a former one away,
            whose thresholds were for scores of another temperature.
        detector_base: Base of the detector's adapter instead of the one that it names.
        output: Folder to make: a copy of the head with the new settings and `calibration.json`.
        in_place: Write both into the head's own folder instead.
        benign_source: Count only this source's harmless rows for the rate; None takes all.
        held_out: Keep only the rows that training holds out unless told otherwise.
        limits: Largest share of a source's harmless rows to flag, by source.
        recall_loss: Recall that the cascade may lose against the detector alone, as a share.
        batch_size: Answers a forward pass.
        options: How model and detector are loaded; None stands for the defaults.

    Raises:
        InputError: When input is missing or unfit, the head belongs to another model, or the place must not be written.
            Nothing is written then.
    """
    from llava.model.loading import load_mllm

    check_bounds("false_positive_rate", false_positive_rate)
    check_bounds("recall_loss", recall_loss)
    chosen = options or LoadOptions()
    folder = find_head(head)
    check_target(folder, Path(head), output, in_place)
    loaded = StateHead.from_pretrained(head)
    rows = read_rows(data, held_out, build_loader(labelled=True))
    labels, benign = find_classes(rows, data, benign_source)
    by_source = SourceLimits([row.source for row in rows], dict(limits or {}))
    check_sources(by_source.limits, by_source.sources, labels)
    mllm = load_mllm(model, chosen)
    loaded.check(mllm)
    guard = build_guard(detector, dataclasses.replace(chosen, base=detector_base)) if detector else None
    scores = score_rows(loaded, mllm, rows, batch_size)
    detected = detect_rows(guard, rows) if guard else None
    try:
        alone = calibrate_scores(scores, labels, benign, false_positive_rate, loaded.config.temperature, by_source)
        scaled = change_temperature(scores, loaded.config.temperature, alone.temperature)
        cascade = None
        if detected is not None:
            cascade = choose_cascade(
                scaled,
                detected,
                labels,
                recall_loss=recall_loss,
                sources=by_source.sources if by_source.limits else None,
                limits=by_source.limits,
            )
    except ValueError as error:
        raise InputError(f"--data {data}: {error}; give other rows or a higher --false-positive-rate") from None
    config = dataclasses.replace(
        loaded.config,
        threshold=alone.threshold,
        temperature=alone.temperature,
        cascade=to_cascade(guard, cascade) if guard and cascade else None,
    )
    found = HeadCalibration(alone, cascade)

    def write(target: Path) -> None:
        sources = sorted({row.source for row in rows})
        write_json(target / REPORT_NAME, {**dataclasses.asdict(found), "data": sources, "held_out": held_out})
        config.save(target)

    write_calibrated(folder, output, write)
    return found


def score_rows(
    head: StateHead, model: MultimodalModel, rows: Sequence[AnswerRow], batch_size: int
) -> npt.NDArray[np.float64]:
    """Return a head's scores of rows, (N,); NaN where it has none."""
    images = [open_image(row.image) if row.image else None for row in rows]
    return np.array(head.score(model, [row.prompt for row in rows], [row.response for row in rows], images, batch_size))


def detect_rows(guard: Guard, rows: Sequence[AnswerRow]) -> npt.NDArray[np.bool_]:
    """Return which rows a guard flags, (N,); what it cannot score is flagged."""
    scores = np.array(score_responses(guard, [row.response for row in rows], [row.prompt for row in rows]))
    flagged: npt.NDArray[np.bool_] = ~(scores < guard.threshold)
    return flagged


def to_cascade(guard: Guard, chosen: CascadeChoice) -> Cascade:
    """Return what a head keeps of its thresholds for a detector."""
    return Cascade(
        detector=guard.name,
        key=guard.identity.rpartition("@")[0],
        low=chosen.low,
        high=chosen.high,
        asked=chosen.asked,
        recall=chosen.recall,
        false_positive_rate=chosen.false_positive_rate,
        detector_recall=chosen.detector_recall,
        detector_false_positive_rate=chosen.detector_false_positive_rate,
    )
