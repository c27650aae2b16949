"""Small runs on disk, made by hand, for the tests of scoring and reports."""

from __future__ import annotations

from pathlib import Path

from llava.constants import REFUSAL
from llava.data.schema import Action, GuardResult, ImageType, Question, Record
from llava.eval.run.layout import RECORDS_FILE, RUN_FILE
from llava.files import write_json, write_jsonl

ANSWER = "Sure. First mix flour and water, then wait for an hour."
REFUSED = "I'm sorry, but I can't help with that."


def build_record(
    number: int | str,
    response: str = ANSWER,
    *,
    scenario: str = "06-Fraud",
    image_type: str = "TEXT",
    harmful: bool = True,
    harm_score: float | None = 0.2,
    shown: str | None = None,
    guarded: bool = True,
    image: str | None = None,
    pair: str | None = None,
) -> Record:
    """Return a record; `shown` is what the guard put in place of the response, `pair` names its contrast pair."""
    question = Question(
        "sample",
        scenario,
        str(number),
        ImageType(image_type),
        f"question {number}",
        image,
        harmful,
        {"Key Phrase": "k", **({"pair": pair} if pair else {})},
    )
    changed = shown is not None
    action = Action.PASSED if not changed else Action.REFUSED if shown == REFUSAL else Action.REWRITTEN
    guard = GuardResult(shown if shown is not None else response, response, harm_score, changed, action)
    return Record(question, response, guard if guarded else None, {"generate": 0.5, "guard": 0.25})


def build_run(folder: Path, records: list[Record], **changes) -> Path:
    """Write `records.jsonl` and a `run.json` such as a generation run leaves."""
    guarded = records[0].guard is not None
    checkpoint = {"name": "embedded", "path": "/models/d", "digest": "d1"}
    run = {
        "fingerprint": {
            "detector": checkpoint if guarded else None,
            "detoxifier": None,
            "benchmark": "sample",
            "temperature": 0.0,
            "limit": None,
        },
        "settings": {"model": "my_model", "detector": "embedded" if guarded else None, "detoxifier": None, "seed": 0},
        "benchmark": {"name": "sample", "missing_images": [], "notes": []},
        "model_notes": ["vision tower is untrained"],
        "threshold": 0.5,
        "versions": {"torch": "2.0"},
        "device": "cpu",
        "launches": [{"id": "a", "seconds": 2.0}],
        **changes,
    }
    write_json(folder / RUN_FILE, run)
    write_jsonl(folder / RECORDS_FILE, (record.to_dict() for record in records))
    return folder


def build_mixed_run(folder: Path) -> Path:
    """Write a run of ten records: two scenarios, two image types, two benign questions.

    Harmful: 8, answered 6, of which 3 are changed (2 refused, 1 rewritten). Benign: 2, the model refuses one.
    """
    fraud = {"scenario": "06-Fraud"}
    legal = {"scenario": "10-Legal_Opinion", "image_type": "SD"}
    records = [
        build_record(0, **fraud, harm_score=0.9, shown=REFUSAL),
        build_record(1, **fraud, harm_score=0.8, shown=REFUSAL),
        build_record(2, **fraud, harm_score=0.7, shown="Here is a safe idea: bake bread."),
        build_record(3, **fraud),
        build_record(0, REFUSED, **legal),
        build_record(1, REFUSED, **legal),
        build_record(2, **legal),
        build_record(3, **legal),
        build_record(4, REFUSED, **legal, harmful=False),
        build_record(5, **legal, harmful=False),
    ]
    return build_run(folder, records)
