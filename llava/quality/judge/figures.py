"""The figures of the shipped judge: on held-out rows together and by source, and against answers labelled by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from llava.data.schema import Verdict
from llava.errors import InputError
from llava.eval.judges.answers import AnswerJudge
from llava.eval.judges.base import Judge
from llava.eval.judges.registry import judge_texts
from llava.eval.scoring.metrics import cohen_kappa
from llava.files import read_jsonl
from llava.quality.bootstrap import RESAMPLES
from llava.quality.detector_groups import SHOWN
from llava.quality.detector_rows import ORDINARY, KeyedRow
from llava.quality.judge.rows import NOISY, load_measured
from llava.quality.metrics import evaluate_detector


def measure_judge(judge: AnswerJudge, data: Path, resamples: int = RESAMPLES) -> dict[str, Any]:
    """Return the judge's figures on the rows that it never learnt from.

    Args:
        judge: The judge.
        data: Folder of the data files, see `llava/quality/detector_rows.py`.
        resamples: Bootstrap resamples, by the key that the rows are split by; 0 leaves the intervals out.

    Returns:
        `threshold`; `all`, all labelled rows but those of `NOISY`; `answers`, the same without the ordinary ones;
        `ordinary`, those alone; `groups`, by source. Each has the figures named in `SHOWN`, and `unscored`, the
        number of rows that the judge says nothing about and that are left out of the others.
    """
    rows = load_measured(data)
    verdicts = judge_texts(judge, [each.row.prompt for each in rows], [each.row.response for each in rows])
    pairs = list(zip(rows, verdicts, strict=True))
    trusted = [pair for pair in pairs if pair[0].row.source not in NOISY]
    ordinary = [pair for pair in trusted if pair[0].row.source in ORDINARY]
    answers = [pair for pair in trusted if pair[0].row.source not in ORDINARY]
    sources = dict.fromkeys(keyed.row.source for keyed in rows)
    groups = {source: [pair for pair in pairs if pair[0].row.source == source] for source in sources}
    return {
        "threshold": judge.threshold,
        "all": describe_part(trusted, judge.threshold, resamples),
        "answers": describe_part(answers, judge.threshold, resamples),
        "ordinary": describe_part(ordinary, judge.threshold, resamples),
        "groups": {source: describe_part(part, judge.threshold, resamples) for source, part in groups.items()},
    }


def describe_part(pairs: Sequence[tuple[KeyedRow, Verdict]], threshold: float, resamples: int) -> dict[str, Any]:
    """Return the figures of some rows with their verdicts."""
    scored = [(keyed, verdict.score) for keyed, verdict in pairs if verdict.score is not None]
    rows = [replace(keyed.row, prompt=keyed.key) for keyed, _ in scored]
    report = evaluate_detector(rows, [score for _, score in scored], threshold=threshold, resamples=resamples)
    figures = {key: report["overall"][key] for key in SHOWN if key in report["overall"]}
    return {**figures, "unscored": sum(verdict.unsafe is None for _, verdict in pairs)}


def measure_agreement(judge: Judge, path: Path) -> dict[str, Any]:
    """Return how far a judge agrees with answers that were labelled by hand.

    Args:
        judge: Any judge.
        path: Rows of `prompt`, `response` and `unsafe`.

    Returns:
        `n`, `unsafe`, `agreed`, `kappa`, `missed` (unsafe ones called safe), `alarms` (the reverse), `unscored`.

    Raises:
        InputError: When the file has no such rows.
    """
    rows = read_jsonl(path, "labelled answers")
    for number, row in enumerate(rows, 1):
        if not isinstance(row.get("unsafe"), bool):
            raise InputError(f"{path} row {number} has no label; add unsafe: true or false")
    verdicts = judge_texts(judge, [row["prompt"] for row in rows], [row["response"] for row in rows])
    said = [(row["unsafe"], verdict.unsafe) for row, verdict in zip(rows, verdicts, strict=True)]
    scored = [(truth, verdict) for truth, verdict in said if verdict is not None]
    return {
        "n": len(rows),
        "unsafe": sum(truth for truth, _ in said),
        "agreed": sum(truth == verdict for truth, verdict in scored),
        "kappa": cohen_kappa([truth for truth, _ in scored], [verdict for _, verdict in scored]),
        "missed": scored.count((True, False)),
        "alarms": scored.count((False, True)),
        "unscored": len(said) - len(scored),
    }
