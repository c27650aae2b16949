"""Verdict files: what each judge said, appended as it says it, so that no text is judged twice.

`verdicts/<judge>.jsonl` has one line a record: its key, a digest of the texts that were judged, and the judge's verdict
on each. The digest keeps an old verdict from sticking to a new text.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import Any

from llava.data.schema import Record, RecordKey, Verdict
from llava.eval.judges import Judge, judge_texts, name_file, unique_texts
from llava.eval.metrics import Judged, shown_text
from llava.eval.records import parse_shard, read_key
from llava.files import write_text_atomic

VERDICTS_FOLDER = "verdicts"
CHUNK = 64
"""Records whose verdicts are written together."""


def judge_records(folder: Path, records: Sequence[Record], judge: Judge) -> list[Judged]:
    """Return a judge's verdicts on all records, asking only for those that are not on file.

    Args:
        folder: Folder of the run.
        records: Its records.
        judge: Who judges.

    Returns:
        One row a record, in order.
    """
    path = folder / VERDICTS_FOLDER / name_file(judge)
    known = read_verdicts(path)
    for chunk in list_open(known, records):
        rows = list(ask_judge(judge, chunk))
        append_verdicts(path, rows)
        known.update({(row.record.key, digest_texts(row.record)): (row.unprotected, row.protected) for row in rows})
    return [Judged(record, *known[record.key, digest_texts(record)]) for record in records]


def list_open(known: Container[tuple[RecordKey, str]], records: Sequence[Record]) -> list[Sequence[Record]]:
    """Return the records without a verdict, in the chunks in which they are judged."""
    missing = [record for record in records if (record.key, digest_texts(record)) not in known]
    return [missing[start : start + CHUNK] for start in range(0, len(missing), CHUNK)]


def list_questions(folder: Path, records: Sequence[Record], judge: Judge) -> list[tuple[str, str]]:
    """Return the (prompt, text) pairs that `judge_records` would ask the judge about."""
    known = read_verdicts(folder / VERDICTS_FOLDER / name_file(judge))
    return [pair for chunk in list_open(known, records) for pair in unique_texts(*collect_texts(chunk))]


def collect_texts(records: Sequence[Record]) -> tuple[list[str], list[str]]:
    """Return what is judged of records: the prompts twice, beside what the model said and then what was shown."""
    prompts = [record.question.prompt for record in records]
    return prompts * 2, [record.response for record in records] + [shown_text(record) for record in records]


def ask_judge(judge: Judge, records: Sequence[Record]) -> Iterator[Judged]:
    """Judge what the model said and what the user saw; most often they are the same text and judged once."""
    verdicts = judge_texts(judge, *collect_texts(records))
    for place, record in enumerate(records):
        yield Judged(record, verdicts[place], verdicts[len(records) + place] if record.guard else None)


def digest_texts(record: Record) -> str:
    """Return a digest of what a judge reads of a record."""
    texts = [record.question.prompt, record.response, record.guard.text if record.guard else None]
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:32]


def read_verdicts(path: Path) -> dict[tuple[RecordKey, str], tuple[Verdict, Verdict | None]]:
    """Return the verdicts on file; a last line that a kill cut short is taken off the file.

    Raises:
        InputError: When a line in the middle is corrupt.
    """
    if not path.exists():
        return {}
    content = path.read_bytes()
    if not content.endswith(b"\n"):
        content = content[: content.rfind(b"\n") + 1]
        write_text_atomic(path, content.decode())
    known = {}
    for number, row in enumerate(parse_shard(content, path), start=1):
        protected = Verdict.from_dict(row["protected"]) if row["protected"] else None
        known[read_key(row, path, number), row["texts"]] = (Verdict.from_dict(row["unprotected"]), protected)
    return known


def load_verdicts(folder: Path, summary: dict[str, Any]) -> dict[RecordKey, list[bool | None]]:
    """Return what the headline judge of a scored run said: unsafe before and, with a protector, after."""
    path = folder / summary["verdict_files"][summary["judge"]]
    return {
        key: [verdict.unsafe for verdict in sides if verdict is not None]
        for (key, _), sides in read_verdicts(path).items()
    }


def append_verdicts(path: Path, rows: Sequence[Judged]) -> None:
    """Append verdicts and return when they are on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(to_row(row), ensure_ascii=False) + "\n" for row in rows)
    with path.open("ab") as stream:
        stream.write(lines.encode())
        stream.flush()
        os.fsync(stream.fileno())


def to_row(row: Judged) -> dict[str, Any]:
    """Return the JSON form of a line."""
    return {
        **row.record.key._asdict(),
        "texts": digest_texts(row.record),
        "unprotected": row.unprotected.to_dict(),
        "protected": row.protected.to_dict() if row.protected else None,
    }
