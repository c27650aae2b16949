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
from llava.errors import InputError
from llava.files import iter_jsonl, write_jsonl

RECORDS_FILE = "records.jsonl"
SHARDS_FOLDER = "shards"


class ShardWriter:
    """Appends records to the shard of one process."""

    def __init__(self, folder: Path, launch: str, rank: int):
        """Name the shard `<launch>-<rank>.jsonl`; the file is made with the first record."""
        self.path = folder / SHARDS_FOLDER / f"{launch}-{rank:04d}.jsonl"

    def append(self, records: Sequence[Record]) -> None:
        """Write `records` and return when they are on disk."""
        if not records:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lines = "".join(json.dumps(record.to_dict(), ensure_ascii=False) + "\n" for record in records)
        with self.path.open("ab") as stream:
            stream.write(lines.encode())
            stream.flush()
            os.fsync(stream.fileno())


def parse_shard(content: bytes, path: Path) -> list[dict[str, Any]]:
    """Return the rows of a shard; a last line that a kill cut short is dropped.

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
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise InputError(f"shard {path} line {number} is corrupt; delete that line and run again")
        rows.append(row)
    return rows


def list_shards(folder: Path) -> list[Path]:
    """Return the shards of a run, oldest launch first."""
    return sorted((folder / SHARDS_FOLDER).glob("*.jsonl"))


def read_rows(folder: Path) -> dict[RecordKey, dict[str, Any]]:
    """Return all rows of a run by key: `records.jsonl` first, then the shards; the first row of a key counts.

    Two launches may both have answered a question when one was killed between writing and merging.
    """
    merged: dict[RecordKey, dict[str, Any]] = {}
    if (folder / RECORDS_FILE).exists():
        for number, row in iter_jsonl(folder / RECORDS_FILE, "record file"):
            merged.setdefault(read_key(row, folder / RECORDS_FILE, number), row)
    for path in list_shards(folder):
        for number, row in enumerate(parse_shard(path.read_bytes(), path), start=1):
            merged.setdefault(read_key(row, path, number), row)
    return merged


def read_key(row: dict[str, Any], path: Path, number: int) -> RecordKey:
    """Return the key of a row."""
    try:
        return RecordKey(row["benchmark"], row["scenario"], row["id"], row["image_type"])
    except KeyError as error:
        raise InputError(f"{path} line {number} has no {error.args[0]!r}; it is not a record of a run") from None


def merge_records(folder: Path, questions: Iterable[Question]) -> list[RecordKey]:
    """Write `records.jsonl` in question order when every question has a record, then remove the shards.

    Returns:
        Keys that have no record yet; nothing is written unless this is empty.
    """
    keys = [question.key for question in questions]
    rows = read_rows(folder)
    missing = [key for key in keys if key not in rows]
    if missing:
        return missing
    shards = list_shards(folder)
    if shards or not (folder / RECORDS_FILE).exists():
        write_jsonl(folder / RECORDS_FILE, (rows[key] for key in keys))
    for path in shards:
        path.unlink()
    if (folder / SHARDS_FOLDER).is_dir():
        (folder / SHARDS_FOLDER).rmdir()
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
    records = []
    for number, row in iter_jsonl(path, "record file"):
        try:
            records.append(Record.from_dict(row))
        except InputError as error:
            raise InputError(f"record file {path} line {number} is not a record ({error}); generate it again") from None
    if not records:
        raise InputError(f"record file {path} is empty; run `generate --output {folder}` first")
    return records
