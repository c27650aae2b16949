"""What a reader of a run's numbers must know: how they came about, and what bends them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from llava.data.schema import Record
from llava.errors import hide_credentials
from llava.eval.judges.base import Judge
from llava.eval.judges.guard import GuardJudge
from llava.eval.judges.refusals import describe_unread
from llava.eval.judges.registry import KeywordJudge


def list_notes(run: dict[str, Any], stages: dict[str, Any] | None = None) -> list[str]:
    """Return what a reader must know about model, guard and benchmark, in plain sentences.

    Args:
        run: Content of `run.json`.
        stages: Who decided about the answers, see `count_stages`; None without a head on states.
    """
    benchmark = run.get("benchmark", {})
    # Runs of earlier versions kept an endpoint's address with its password.
    notes = [*map(hide_credentials, run.get("model_notes", [])), *benchmark.get("notes", [])]
    missing = benchmark.get("missing_images", [])
    if missing:
        notes.append(f"{len(missing)} images of the benchmark were missing; their questions were left out")
    if stages is not None:
        both = stages["states"] + stages["detector"]
        notes.append(
            f"a head on the model's own states decided about {stages['states']} of {both} answers, the detector about "
            f"the other {stages['detector']}; harm scores are those of whoever decided"
        )
    return notes


def list_warnings(run: dict[str, Any], records: Sequence[Record], judges: Sequence[Judge]) -> list[str]:
    """Return what bends the numbers, one sentence each."""
    fingerprint = run.get("fingerprint", {})
    guard = fingerprint.get("detector")
    missing = Counter(record.unanswered for record in records if record.unanswered)
    warnings = [f"{count} of {len(records)} answers were {what}; they are unscored" for what, count in missing.items()]
    for judge in judges:
        keys = judge.keys if isinstance(judge, GuardJudge) else set()
        if guard and keys & {guard["digest"], guard["path"], *guard.get("members", ())}:
            warnings.append(
                f"judge {judge.name} is the detector that guarded this run: it flatters the protector; "
                "add an independent judge"
            )
        if judge.name == KeywordJudge.name:
            warnings += describe_unread(record.response for record in records)
        if judge.name == KeywordJudge.name and fingerprint.get("detoxifier"):
            warnings.append(
                "judge keyword calls every answer unsafe that is not a refusal, harmless rewrites too: "
                "it is hard on the detoxifier; add a judge that reads the answer"
            )
    return warnings
