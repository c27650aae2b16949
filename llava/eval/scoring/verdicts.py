"""Verdict files: what each judge said, appended as it says it, so that no text is judged twice.

`verdicts/<judge>.jsonl` has a record's key, a digest of the texts that were judged, and the judge's verdict on each, a
line. The digest keeps an old verdict from sticking to a new text. A record whose two texts are judged one after the
other has two lines, the first of them with one verdict; together they count.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llava.data.schema import Record, RecordKey, Verdict
from llava.eval.judges.base import Judge
from llava.eval.judges.criteria import Asked, ask_about, unique_questions
from llava.eval.judges.registry import ask_judge, name_file
from llava.eval.run.layout import VERDICTS_FOLDER
from llava.eval.run.records import REMEDY, append_lines, read_key, read_shard
from llava.eval.scoring.metrics import Judged, shown_text
from llava.fields import Fields
from llava.files import explain_writing
from llava.model.answering.client import EndpointError

Sides = tuple[Verdict | None, Verdict | None]
"""The verdicts on what the model said and on what the user saw; None where there is none (yet)."""


def judge_records(folder: Path, records: Sequence[Record], judge: Judge) -> list[Judged]:
    """Return a judge's verdicts on all records, asking only for those that are not on file.

    Args:
        folder: Folder of the run.
        records: Its records.
        judge: Who judges.

    Returns:
        One row a record, in order.

    Raises:
        EndpointError: When a judge's server stops answering; what it said before is on file.
        FailedRunError: When the disk is full; what was written before is kept.
    """
    path = locate_verdicts(folder, judge)
    known = read_verdicts(path)
    cut_torn_line(path)
    append_lines(path, leave_unscored(known, records, judge))
    places: dict[Asked, list[tuple[Record, int]]] = {}
    for record, side, asked in list_open(known, records):
        places.setdefault(asked, []).append((record, side))

    def store(answered: Iterable[tuple[Asked, Verdict]]) -> None:
        changed: dict[tuple[RecordKey, str], Record] = {}
        for asked, verdict in answered:
            for record, side in places[asked]:
                place = (record.key, digest_texts(record))
                before, after = known.get(place, (None, None))
                known[place] = (before, verdict) if side else (verdict, after)
                changed[place] = record
        append_lines(path, [to_row(record, known[place]) for place, record in changed.items()])

    store((asked, Verdict(judge.name, False)) for asked in places if not asked.text.strip())
    try:
        for answered in ask_judge(judge, unique_questions(list(places))):
            store(answered)
    except EndpointError as error:
        raise EndpointError(f"{error}; its verdicts are kept, run the same command again for the rest") from None
    return [to_judged(record, known[record.key, digest_texts(record)]) for record in records]


def locate_verdicts(folder: Path, judge: Judge) -> Path:
    """Return the verdict file of a judge."""
    return folder / VERDICTS_FOLDER / name_file(judge)


def leave_unscored(
    known: dict[tuple[RecordKey, str], Sides], records: Sequence[Record], judge: Judge
) -> list[dict[str, Any]]:
    """Add to `known` that what never came cannot be judged, whoever judges, and return the lines that say so."""
    rows = []
    for record in records:
        place = (record.key, digest_texts(record))
        if record.unanswered and place not in known:
            nothing = Verdict(judge.name, None)
            known[place] = (nothing, nothing if record.guard else None)
            rows.append(to_row(record, known[place]))
    return rows


def list_open(
    known: Mapping[tuple[RecordKey, str], Sides], records: Sequence[Record]
) -> list[tuple[Record, int, Asked]]:
    """Return what has no verdict: the record, 0 for what the model said or 1 for what was shown, and the question.

    The shown text is most often what the model said; then the two are one question and asked once. What never came is
    not asked about.
    """
    records = [record for record in records if not record.unanswered]
    places = [(record, 0, record.response) for record in records]
    places += [(record, 1, shown_text(record)) for record in records if record.guard]
    return [
        (record, side, ask_about(record.question, text))
        for record, side, text in places
        if known.get((record.key, digest_texts(record)), (None, None))[side] is None
    ]


def list_questions(folder: Path, records: Sequence[Record], judge: Judge) -> list[Asked]:
    """Return what `judge_records` would ask the judge."""
    known = read_verdicts(locate_verdicts(folder, judge))
    return unique_questions([asked for _, _, asked in list_open(known, records)])


def to_judged(record: Record, verdicts: Sides) -> Judged:
    """Return a record with its verdicts."""
    before, after = verdicts
    assert before is not None
    return Judged(record, before, after)


def digest_texts(record: Record) -> str:
    """Return a digest of what a judge reads of a record."""
    texts = [record.question.prompt, record.response, record.guard.text if record.guard else None]
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:32]


def read_verdicts(path: Path) -> dict[tuple[RecordKey, str], Sides]:
    """Return the verdicts on file; a last line that was cut short does not count.

    Raises:
        InputError: When another line is corrupt, or a field of it is of another type.
    """
    if not path.exists():
        return {}
    known: dict[tuple[RecordKey, str], Sides] = {}
    for number, row in enumerate(read_shard(path), start=1):
        where = f"verdict file {path} line {number}"
        place = (read_key(row, where), Fields(row, where, REMEDY).text("texts"))
        before, after = known.get(place, (None, None))
        known[place] = (
            read_verdict(row, "unprotected", where) or before,
            read_verdict(row, "protected", where) or after,
        )
    return known


def read_verdict(row: dict[str, Any], side: str, where: str) -> Verdict | None:
    """Return one verdict of a line; None when the line has none for that side."""
    verdict = Fields(row, where, REMEDY).mapping(side, None)
    return None if verdict is None else Verdict.from_dict(verdict, f"{where}, '{side}'", REMEDY)


def cut_torn_line(path: Path) -> None:
    """Take a last line that a kill or a full disk cut short off a verdict file, so that others can come behind it.

    Only the judge that goes on writing the file does so; whoever merely reads it leaves it as it is.
    """
    if not path.exists():
        return
    with explain_writing(path), path.open("r+b") as stream:
        content = stream.read()
        if not content.endswith(b"\n"):
            stream.truncate(content.rfind(b"\n") + 1)


def load_verdicts(folder: Path, summary: dict[str, Any]) -> dict[RecordKey, list[bool | None]]:
    """Return what the headline judge of a scored run said: unsafe before and, with a protector, after.

    Args:
        folder: Folder of the run; nothing in it is changed.
        summary: Its summary as `read_summary` returns it: the verdict file is a plain name below `verdicts/`.
    """
    path = folder / summary["verdict_files"][summary["judge"]]
    return {
        key: [before.unsafe] if after is None else [before.unsafe, after.unsafe]
        for (key, _), (before, after) in read_verdicts(path).items()
        if before is not None
    }


def to_row(record: Record, verdicts: Sides) -> dict[str, Any]:
    """Return the JSON form of a line."""
    before, after = verdicts
    return {
        **record.key._asdict(),
        "texts": digest_texts(record),
        "unprotected": before.to_dict() if before else None,
        "protected": after.to_dict() if after else None,
    }
