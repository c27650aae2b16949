"""The files of a run: shards that processes append to, and the one file they become.

A process appends the records of a batch to its own shard and syncs it, so a record that was written survives a kill.
Only the last line of a shard can be torn, and only that is forgiven.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from llava.data.schema import Question, Record, RecordKey
from llava.errors import FailedRunError, InputError
from llava.eval.run.layout import RECORDS_FILE, SHARDS_FOLDER
from llava.fields import Fields
from llava.files import explain_reading, explain_writing, iter_jsonl, parse_json, write_jsonl

REMEDY = "delete that line and run again"


class ShardWriter:
    """Appends records to the shard of one process."""

    def __init__(self, folder: Path, launch: str, rank: int):
        """Name the shard `<launch>-<rank>.jsonl`; the file is made with the first record."""
        self.path = folder / SHARDS_FOLDER / f"{launch}-{rank:04d}.jsonl"

    def append(self, records: Sequence[Record]) -> None:
        """Write `records` and return when they are on disk.

        Raises:
            FailedRunError: When the disk is full: what was written last is torn then, and nothing must come behind it.
        """
        append_lines(self.path, [record.to_dict() for record in records])


def append_lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Append rows to a JSON Lines file, which is made with the first one, and return when they are on disk.

    Raises:
        InputError: When the place cannot be written to.
        FailedRunError: When the disk is full; the last line may be torn then.
    """
    if not rows:
        return
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    with explain_writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as stream:
            stream.write(lines.encode())
            stream.flush()
            os.fsync(stream.fileno())


def parse_shard(content: bytes, path: Path) -> list[dict[str, Any]]:
    """Return the rows of a shard; a last line that a kill or a full disk cut short is dropped.

    Raises:
        InputError: When any other line is not a JSON object; the message names file and line.

    Example:
        >>> parse_shard(b'{"a": 1}\\n{"a": 2}\\n{"a":', Path("shards/x.jsonl"))
        [{'a': 1}, {'a': 2}]
    """
    rows = []
    lines = content.split(b"\n")
    for number, line in enumerate(lines[:-1], start=1):
        try:
            row = parse_json(line.decode(), "line")
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise InputError(f"shard {path} line {number} is corrupt; {REMEDY}")
        rows.append(row)
    return rows


def read_shard(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a shard on disk, as `parse_shard` does.

    Raises:
        InputError: When it cannot be read, or a line other than a torn last one is corrupt.
    """
    with explain_reading("shard", path):
        return parse_shard(path.read_bytes(), path)


def list_shards(folder: Path) -> list[Path]:
    """Return the shards of a run, oldest launch first."""
    return sorted((folder / SHARDS_FOLDER).glob("*.jsonl"))


def read_rows(folder: Path) -> dict[RecordKey, dict[str, Any]]:
    """Return all rows of a run by key: `records.jsonl` first, then the shards; the first row of a key counts.

    Two launches may both have answered a question when one was killed between writing and merging.
    """
    merged: dict[RecordKey, dict[str, Any]] = {}
    path = folder / RECORDS_FILE
    if path.exists():
        for number, row in iter_jsonl(path, "record file"):
            record = Record.from_dict(row, f"record file {path} line {number}", REMEDY)
            merged.setdefault(record.key, row)
    for path in list_shards(folder):
        for number, row in enumerate(read_shard(path), start=1):
            record = Record.from_dict(row, f"shard {path} line {number}", REMEDY)
            merged.setdefault(record.key, row)
    return merged


def read_key(row: dict[str, Any], where: str, remedy: str = REMEDY) -> RecordKey:
    """Return the key of a row; `where` names file and line.

    Raises:
        InputError: When a part of it is absent or no text.
    """
    fields = Fields(row, where, remedy)
    return RecordKey(*(fields.text(part) for part in RecordKey._fields))


def merge_records(folder: Path, questions: Iterable[Question]) -> list[RecordKey]:
    """Write `records.jsonl` in question order when every question has a record, then remove the shards.

    Returns:
        Keys that have no record yet; nothing is written unless this is empty.

    Raises:
        FailedRunError: When the disk has no room for `records.jsonl` beside the shards, which are kept.
    """
    keys = [question.key for question in questions]
    rows = read_rows(folder)
    missing = [key for key in keys if key not in rows]
    if missing:
        return missing
    shards = list_shards(folder)
    if shards or not (folder / RECORDS_FILE).exists():
        try:
            write_jsonl(folder / RECORDS_FILE, (rows[key] for key in keys))
        except FailedRunError as error:
            kept = f"all {len(keys)} records are kept, run the same command again to finish"
            raise FailedRunError(f"{error}; {kept}") from None
    for path in shards:
        path.unlink()
    place = folder / SHARDS_FOLDER
    if place.is_dir() and not any(place.iterdir()):
        place.rmdir()
    return []


def load_records(folder: str | Path) -> list[Record]:
    """Return the records of a finished run, in question order.

    Raises:
        InputError: When the run is not there, not finished, or a row is not a record.
    """
    folder = Path(folder)
    path = folder / RECORDS_FILE
    if not path.is_file():
        if list_shards(folder):
            count = len(read_rows(folder))
            raise InputError(f"run {folder} is not finished ({count} records so far); run `generate` on it again")
        raise InputError(f"{folder} holds no {RECORDS_FILE}; run `generate --output {folder}` first")
    records: dict[RecordKey, tuple[int, Record]] = {}
    for number, row in iter_jsonl(path, "record file"):
        where = f"record file {path} line {number}"
        record = Record.from_dict(row, where, "generate it again")
        if record.key in records:
            # Counted twice, it would weigh double in every rate.
            raise InputError(f"{where} has the question of line {records[record.key][0]}; delete one of the two")
        records[record.key] = (number, record)
    if not records:
        raise InputError(f"record file {path} is empty; run `generate --output {folder}` first")
    return [record for _, record in records.values()]
