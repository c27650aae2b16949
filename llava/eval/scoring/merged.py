"""`merged.json` of each scenario, in the shape of the reference project."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from llava.data.schema import Record
from llava.eval.run.layout import MERGED_FILE, RESERVED_NAMES
from llava.eval.scoring.metrics import shown_text
from llava.files import write_json
from llava.places import to_file_name


def write_merged(folder: Path, records: Sequence[Record]) -> None:
    """Write `<scenario>/merged.json`, in the shape of the reference project.

    Each maps a question's id to the benchmark's own fields and `ans`: image type → `text` (what the user saw),
    `text_original` (what the model said) and `score`, which there is the probability that the response is *harmless*.
    """
    scenarios: dict[str, dict[str, Any]] = {}
    for record in records:
        question = record.question
        entries = scenarios.setdefault(question.scenario, {})
        entry = entries.setdefault(question.id, {**question.fields, "ans": {}})
        harm_score = record.guard.harm_score if record.guard else None
        entry["ans"][question.image_type.value] = {
            "text": shown_text(record),
            "text_original": record.response,
            "score": None if harm_score is None else 1.0 - harm_score,
        }
    for path, entries in zip(list_merged(folder, records), scenarios.values(), strict=True):
        write_json(path, entries)


def list_merged(folder: Path, records: Sequence[Record]) -> list[Path]:
    """Return the files that `write_merged` writes, in the order in which the scenarios first occur."""
    return [folder / name / MERGED_FILE for name in name_folders(record.question.scenario for record in records)]


def name_folders(scenarios: Iterable[str]) -> list[str]:
    """Return a folder name for each different scenario: the same where it can be one, never outside the run or twice.

    Case makes no difference, for there are file systems to which it makes none.

    Example:
        >>> name_folders(["06-Fraud", "../etc", "records.jsonl", "06-fraud"])
        ['06-Fraud', 'etc-f7f9121f', 'records.jsonl-8ed9a4c3', '06-fraud-1c5e8da0']
    """
    names: list[str] = []
    taken = {name.casefold() for name in RESERVED_NAMES}
    for scenario in dict.fromkeys(scenarios):
        plain = to_file_name(scenario)
        marked = to_file_name(scenario, frozenset({plain}))
        candidates = itertools.chain((plain, marked), (f"{marked}-{number}" for number in itertools.count(2)))
        name = next(candidate for candidate in candidates if candidate.casefold() not in taken)
        taken.add(name.casefold())
        names.append(name)
    return names
