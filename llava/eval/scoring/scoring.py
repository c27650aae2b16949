"""Judge a run and sum it up: records in; verdict files, `summary.json` and `merged.json` out."""

from __future__ import annotations

import itertools
import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from llava.bounds import check_bounds
from llava.data.schema import Record, Stage
from llava.errors import InputError
from llava.eval.judges.base import Judge, JudgeOptions
from llava.eval.judges.chat import ChatJudge, Estimate
from llava.eval.judges.harm_scores import summarize_scores
from llava.eval.judges.registry import CHAT, build_judge, name_file
from llava.eval.run.fingerprint import describe, read_run
from llava.eval.run.layout import SUMMARY_FILE, VERDICTS_FOLDER, check_outputs
from llava.eval.run.records import load_records
from llava.eval.scoring.merged import list_merged, write_merged
from llava.eval.scoring.metrics import Judged, cohen_kappa, shown_text, summarize
from llava.eval.scoring.remarks import list_notes, list_warnings
from llava.eval.scoring.verdicts import judge_records, list_questions, locate_verdicts
from llava.files import write_json
from llava.model.answering.client import TIMEOUT
from llava.model.options import LoadOptions, collect_options

DEFAULT_JUDGES = ("keyword",)
"""Needs no model, and is not the detector that guards the run."""

logger = logging.getLogger(__name__)


def score_run(
    folder: str | Path,
    judges: Sequence[str] | None = None,
    options: LoadOptions | None = None,
    *,
    prices: tuple[float, float] | None = None,
    request_timeout: float = TIMEOUT,
    **keywords: Any,
) -> dict[str, Any]:
    """Judge the records of a finished run and write its summary.

    A text that a judge has judged is not judged again, so a call with one judge more only asks that one.

    Args:
        folder: Folder of the run.
        judges: Specifications, see `build_judge`; the first one makes the headline. None stands for `keyword`.
        options: How judges that are models are loaded; None stands for the defaults.
        prices: For a million tokens sent and received, named with what a chat judge will be asked.
        request_timeout: Seconds that one answer of a chat judge may take.
        keywords: Fields of `LoadOptions` by name, such as `device` and `dtype`; they win over `options`.

    Returns:
        The content of `summary.json`.

    Raises:
        InputError: When there are no records, a judge is unknown or given twice, its model cannot be loaded, or a
            result could not be written; nothing is written then.
        EndpointError: When a chat judge's server stops answering; its verdicts so far are kept.
    """
    folder = Path(folder)
    records = load_records(folder)
    run = read_run(folder) or {}
    detector = run.get("settings", {}).get("detector")
    loading = asdict(collect_options(options, keywords))
    check_bounds("request_timeout", request_timeout)
    judging = JudgeOptions(**loading, detector=detector, request_timeout=request_timeout)
    # Before a judge is loaded or asked: what it says must find its place.
    check_outputs(folder, [folder / SUMMARY_FILE, *list_merged(folder, records)])
    built = build_judges(check_judges(judges), judging)
    check_outputs(folder, [locate_verdicts(folder, judge) for judge in built])
    for judge in built:
        if isinstance(judge, ChatJudge):
            logger.warning(judge.estimate(list_questions(folder, records, judge)).describe(prices))
    results: dict[str, list[Judged]] = {}
    seconds: dict[str, float] = {}
    for judge in built:
        start = time.perf_counter()
        results[judge.name] = judge_records(folder, records, judge)
        seconds[judge.name] = time.perf_counter() - start
    summary = build_summary(run, records, built, results, seconds)
    write_merged(folder, records)
    write_json(folder / SUMMARY_FILE, summary)
    return summary


def check_judges(judges: Sequence[str] | None) -> Sequence[str]:
    """Return the specifications of the judges, the default ones for None.

    Raises:
        InputError: When there is none, or one is named twice.
    """
    judges = DEFAULT_JUDGES if judges is None else judges
    if not judges:
        raise InputError("--judge names no judge; give at least one, e.g. keyword")
    if len(set(judges)) < len(judges):
        raise InputError(f"--judge {','.join(judges)} names a judge twice; give each once")
    return judges


def build_judges(specs: Sequence[str], options: JudgeOptions | None = None) -> list[Judge]:
    """Build the judges, and see that reports can tell them apart.

    Raises:
        InputError: When a judge cannot be built, or two of them have one name: `detector` may stand for
            `detector:embedded`, and a chat model is called the same at every address.
    """
    names: dict[str, str] = {}
    built = []
    for spec in specs:
        judge = build_judge(spec, options)
        if judge.name in names:
            raise InputError(
                f"--judge {names[judge.name]} and {spec} are both the judge {judge.name}; give one of them"
            )
        names[judge.name] = spec
        built.append(judge)
    return built


def estimate_judging(folder: str | Path, judges: Sequence[str] | None = None) -> list[Estimate]:
    """Count what the chat judges among `judges` would be asked; nothing is asked and nothing written.

    Raises:
        InputError: When there are no records, or a chat judge's server cannot be reached.
    """
    folder = Path(folder)
    records = load_records(folder)
    built = build_judges([spec for spec in check_judges(judges) if spec.partition(":")[0] == CHAT])
    return [judge.estimate(list_questions(folder, records, judge)) for judge in built if isinstance(judge, ChatJudge)]


def build_summary(
    run: dict[str, Any],
    records: Sequence[Record],
    judges: Sequence[Judge],
    results: dict[str, list[Judged]],
    judge_seconds: dict[str, float],
) -> dict[str, Any]:
    """Collect the measures by the first judge at the top, those by the others under `judges`."""
    settings = run.get("settings", {})
    by_judge = {name: summarize(rows) for name, rows in results.items()}
    headline, *others = by_judge
    overall = by_judge[headline]["overall"]["protector"]
    launches = run.get("launches", [])
    return {
        "benchmark": run.get("benchmark", {}).get("name") or records[0].question.benchmark,
        **by_judge[headline],
        "protector": {**overall, "threshold": run.get("threshold", settings.get("threshold"))} if overall else None,
        "harm_scores": summarize_scores(records),
        "failures": count_failures(records),
        "stages": count_stages(records),
        "model": settings.get("model"),
        "detector": settings.get("detector"),
        "detoxifier": settings.get("detoxifier"),
        "judge": headline,
        "judges": {name: by_judge[name] for name in others},
        "verdict_files": {judge.name: f"{VERDICTS_FOLDER}/{name_file(judge)}" for judge in judges},
        "agreement": measure_agreement(results),
        "seed": settings.get("seed"),
        "records": len(records),
        "versions": run.get("versions", {}),
        "seconds": {
            **{stage: sum(record.seconds.get(stage, 0.0) for record in records) for stage in ("generate", "guard")},
            "wall": sum(launch.get("seconds", 0.0) for launch in launches),
            "judge": sum(judge_seconds.values()),
        },
        "settings": {name: describe(value) for name, value in run.get("fingerprint", {}).items()},
        "device": run.get("device"),
        "notes": list_notes(run, count_stages(records)),
        "warnings": list_warnings(run, records, judges),
    }


def measure_agreement(results: dict[str, list[Judged]]) -> list[dict[str, Any]]:
    """Return Cohen's kappa of each pair of judges, over the different (question, text) pairs that both could score."""
    opinions = {name: collect_opinions(rows) for name, rows in results.items()}
    agreement = []
    for first, second in itertools.combinations(opinions, 2):
        pairs = [
            (unsafe, opinions[second][text]) for text, unsafe in opinions[first].items() if text in opinions[second]
        ]
        kappa = cohen_kappa([a for a, _ in pairs], [b for _, b in pairs])
        agreed = sum(a == b for a, b in pairs) / len(pairs) if pairs else None
        agreement.append({"judges": [first, second], "n": len(pairs), "agreement": agreed, "kappa": kappa})
    return agreement


def collect_opinions(rows: Sequence[Judged]) -> dict[tuple[str, str], bool]:
    """Return (question, text) → whether a judge called it unsafe.

    What the protector left alone is the same text before and after: it counts once. Unscored and empty texts are left
    out, for no judge reads these.
    """
    opinions = {}
    for row in rows:
        prompt = row.record.question.prompt
        for text, verdict in ((row.record.response, row.unprotected), (shown_text(row.record), row.protected)):
            if verdict is not None and verdict.unsafe is not None and text.strip():
                opinions[prompt, text] = verdict.unsafe
    return opinions


def count_stages(records: Sequence[Record]) -> dict[str, Any] | None:
    """Return who decided about the answers, and how many the detector had to read; None without a head on states.

    Returns:
        `states` and `detector`: how many answers each decided about; `detector_share`: the latter's part of both.
    """
    counts = Counter(record.guard.stage for record in records if record.guard and record.guard.stage)
    if not counts:
        return None
    return {
        **{stage.value: counts[stage] for stage in Stage},
        "detector_share": counts[Stage.DETECTOR] / counts.total(),
    }


def count_failures(records: Sequence[Record]) -> dict[str, Any]:
    """Return what was no answer and no judgement: questions that were turned down, responses at which a part failed.

    Returns:
        `refused`: how many questions the model's server turned down; `unanswered`: to how many something else than an
        answer came; `guard`: how many responses the detector or the detoxifier failed at, by part and type of error.
    """
    failures = [record.guard.failure for record in records if record.guard and record.guard.failure]
    guard = Counter(f"{failure.part} {failure.error}" for failure in failures)
    return {
        "refused": sum(record.refusal is not None for record in records),
        "unanswered": sum(record.unanswered is not None for record in records),
        "guard": dict(sorted(guard.items())),
    }
