"""The checked rows of an input on disk, in chunks that any process can read alone, whatever form the input had.

A compressed file, a table or a Parquet file cannot be entered in the middle. So the input is read once, one row at a
time, and each row that is in order is written as a line of JSON; from then on a chunk is a stretch of bytes.
"""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from llava.files import explain_reading, explain_writing

ROWS_FILE = "rows.jsonl"
MARKED = 32
"""Rows of the smallest chunk: so often the place in the file is noted."""
MOST_ROWS = 512
"""Rows of the largest chunk. It is what a kill costs a process, and sorting more rows by length gains little."""
CHUNKS = 64
"""Chunks that a small file is cut into, so that several processes end at about the same time."""


@dataclass(frozen=True)
class Chunk:
    """Rows that are claimed and scored together."""

    index: int
    """Place in the input, and name in claims."""
    start: int
    """Where its first row begins in the spool, in bytes."""
    size: int
    """Bytes of its rows."""
    rows: int
    """How many rows it has."""

    def to_list(self) -> list[int]:
        """Return the JSON form."""
        return list(astuple(self))


def write_spool(folder: Path, rows: Iterable[dict[str, Any]], output: Path) -> list[Chunk]:
    """Write rows to a folder's spool, one at a time, and return the chunks.

    Args:
        folder: Folder to write to.
        rows: What to write.
        output: What a full disk is reported for: the file whose place it is beside.

    Raises:
        InputError: What reading the rows raises.
        FailedRunError: When the disk is full.
    """
    marks, count, place = array("Q"), 0, 0
    with explain_writing(output), (folder / ROWS_FILE).open("wb") as stream:
        for row in rows:
            if count % MARKED == 0:
                marks.append(place)
            place += stream.write((json.dumps(row, ensure_ascii=False) + "\n").encode())
            count += 1
        stream.flush()
        os.fsync(stream.fileno())
    return list(cut_chunks(marks, place, count))


def cut_chunks(marks: Sequence[int], end: int, count: int) -> Iterator[Chunk]:
    """Cut rows into chunks; it depends on nothing but how many there are.

    Args:
        marks: Where every `MARKED`th row begins, in bytes.
        end: Where the last row ends.
        count: How many rows there are.

    Example:
        >>> [chunk.to_list() for chunk in cut_chunks([0, 640, 1280], 1300, 65)]
        [[0, 0, 640, 32], [1, 640, 640, 32], [2, 1280, 20, 1]]
    """
    most = MOST_ROWS // MARKED
    step = min(most, max(1, round(count / CHUNKS / MARKED)))
    for index, first in enumerate(range(0, len(marks), step)):
        stop = marks[first + step] if first + step < len(marks) else end
        rows = min(count, (first + step) * MARKED) - first * MARKED
        yield Chunk(index, marks[first], stop - marks[first], rows)


def read_chunk(folder: Path, chunk: Chunk) -> list[dict[str, Any]]:
    """Return the rows of a chunk.

    Raises:
        InputError: When the spool cannot be read.
    """
    path = folder / ROWS_FILE
    with explain_reading("file of rows", path), path.open("rb") as stream:
        stream.seek(chunk.start)
        content = stream.read(chunk.size)
    return [json.loads(line) for line in content.split(b"\n") if line]
