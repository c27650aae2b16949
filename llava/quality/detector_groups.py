"""The shipped detector by kind of answer: no kind may bear the false positives of all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from llava.data.training.made_answers import HARM_SOURCE as MADE_HARM
from llava.protector.detector import HarmDetector
from llava.quality.bootstrap import RESAMPLES
from llava.quality.detector_rows import JAILBREAKBENCH, MSTS, ORDINARY, KeyedRow, load_rows, read_group
from llava.quality.early_scores import Trace, summarise_traces, trace_responses
from llava.quality.metrics import evaluate_detector

JAILJUDGE = "jailjudge_mini"
"""Responses to complex jailbreaks in several languages, which were never trained on."""
UNSEEN = 250
"""How many of them are measured, chosen by a hash: they are longer than all other held-out rows together."""
SHOWN = ("n", "harmful", "auroc", "f1", "recall", "fpr", "ci95")
"""What is kept of each group's figures."""


def measure_groups(
    detector: HarmDetector, data: Path, resamples: int = RESAMPLES, groups: Sequence[str] | None = None
) -> dict[str, Any]:
    """Return the figures of each group's held-out rows, and how early harm is flagged.

    Args:
        detector: The detector.
        data: Folder of the data files, see `llava/quality/detector_rows.py`.
        resamples: Bootstrap resamples, by the key that the rows are split by; 0 leaves the intervals out.
        groups: Which groups; None takes JailbreakBench, MSTS, all ordinary ones, MADE_HARM, and JAILJUDGE where its
            file is there.

    Returns:
        `groups`: figures by group; `early`: what `summarise_traces` gives for JailbreakBench, MSTS and `ordinary`;
        `scores`: harm score by the name of each row (see `name_row`).
    """
    rows = read_groups(data, groups)
    traces = trace_rows(detector, rows)
    scores = [1.0 if trace.score != trace.score else trace.score for trace in traces]  # what has no score is flagged
    early = {}
    for name, members in ((JAILBREAKBENCH, (JAILBREAKBENCH,)), (MSTS, (MSTS,)), ("ordinary", ORDINARY)):
        part = [(keyed.row, trace) for keyed, trace in zip(rows, traces, strict=True) if keyed.row.source in members]
        if part:
            early[name] = summarise_traces([row for row, _ in part], [trace for _, trace in part], detector.threshold)
    return {
        "groups": compute_groups(rows, scores, detector.threshold, resamples),
        "early": early,
        "scores": {name_row(keyed): score for keyed, score in zip(rows, scores, strict=True)},
    }


def read_groups(data: Path, groups: Sequence[str] | None = None) -> list[KeyedRow]:
    """Return the held-out rows of groups, group after group.

    Args:
        data: As `measure_groups`.
        groups: As `measure_groups`.
    """
    wanted = (JAILBREAKBENCH, MSTS, *ORDINARY, MADE_HARM, JAILJUDGE) if groups is None else tuple(groups)
    rows = [keyed for keyed in load_rows(data) if keyed.side == "held_out" and keyed.row.source in wanted]
    elsewhere = data / f"{JAILJUDGE}.jsonl"
    unseen = read_group(elsewhere) if JAILJUDGE in wanted and elsewhere.is_file() else []
    return [*sorted(rows, key=lambda keyed: wanted.index(keyed.row.source)), *sorted(unseen, key=hash_row)[:UNSEEN]]


def compute_groups(
    rows: Sequence[KeyedRow], scores: Sequence[float], threshold: float, resamples: int = 0
) -> dict[str, Any]:
    """Return the figures of each group of rows, from their scores.

    Args:
        rows: What `read_groups` returned.
        scores: Harm score of each.
        threshold: The detector's.
        resamples: As `measure_groups`.

    Returns:
        Group → the figures named in `SHOWN`.
    """
    grouped = [replace(keyed.row, prompt=keyed.key) for keyed in rows]
    report = evaluate_detector(grouped, scores, threshold=threshold, resamples=resamples)["by_source"]
    order = dict.fromkeys(keyed.row.source for keyed in rows)
    return {name: {key: report[name][key] for key in SHOWN if key in report[name]} for name in order}


def hash_row(keyed: KeyedRow) -> bytes:
    """Return what the order of rows goes by where some are chosen."""
    return sha256((keyed.row.prompt + keyed.row.response).encode()).digest()


def name_row(keyed: KeyedRow) -> str:
    """Return a row's name in a file of scores, which holds no texts."""
    return sha256(f"{keyed.row.prompt}\0{keyed.row.response}".encode()).hexdigest()[:16]


def trace_rows(detector: HarmDetector, rows: Sequence[KeyedRow]) -> list[Trace]:
    """Trace the responses of rows; the same answer to the same prompt is traced once."""
    texts = list(dict.fromkeys((keyed.row.prompt, keyed.row.response) for keyed in rows))
    traces = trace_responses(detector, [response for _, response in texts], [prompt for prompt, _ in texts])
    found = dict(zip(texts, traces, strict=True))
    return [found[keyed.row.prompt, keyed.row.response] for keyed in rows]
