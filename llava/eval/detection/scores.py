"""The scores of chunks on disk: each process appends to a shard of its own, a line a chunk."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava.errors import InputError
from llava.eval.detection.spool import Chunk
from llava.eval.run.layout import SHARDS_FOLDER
from llava.eval.run.records import REMEDY, append_lines, list_shards
from llava.files import explain_reading, parse_json


@dataclass(frozen=True)
class Place:
    """Where the scores of a chunk lie."""

    shard: Path
    """The file."""
    start: int
    """Where the line begins, in bytes."""
    size: int
    """How long it is."""


@dataclass(frozen=True)
class ChunkScores:
    """What a guard said of a chunk."""

    scores: list[float]
    """Harm score of each row; NaN when it could not be scored."""
    threshold: float
    """The guard's own threshold."""


def append_scores(folder: Path, launch: str, rank: int, chunk: Chunk, found: ChunkScores) -> None:
    """Write the scores of a chunk and return when they are on disk.

    Raises:
        FailedRunError: When the disk is full.
    """
    scores = [None if math.isnan(score) else score for score in found.scores]
    row = {"chunk": chunk.index, "threshold": found.threshold, "scores": scores}
    append_lines(folder / SHARDS_FOLDER / f"{launch}-{rank:04d}.jsonl", [row])


def find_scores(folder: Path, chunks: Sequence[Chunk]) -> dict[int, Place]:
    """Return where the scores of each finished chunk lie; a last line that was cut short does not count.

    Two launches may both have scored a chunk when one was killed; the first counts. One line is held at a time.

    Raises:
        InputError: When a line is corrupt; the message names file and line.
    """
    found: dict[int, Place] = {}
    for path in list_shards(folder):
        with explain_reading("shard", path), path.open("rb") as stream:
            start = 0
            for number, line in enumerate(stream, start=1):
                if line.endswith(b"\n"):
                    index, _ = _parse(line, f"shard {path} line {number}", chunks)
                    found.setdefault(index, Place(path, start, len(line)))
                start += len(line)
    return found


def read_scores(place: Place, chunks: Sequence[Chunk]) -> ChunkScores:
    """Return the scores at a place.

    Raises:
        InputError: When they cannot be read.
    """
    with explain_reading("shard", place.shard), place.shard.open("rb") as stream:
        stream.seek(place.start)
        line = stream.read(place.size)
    return _parse(line, f"shard {place.shard} at byte {place.start}", chunks)[1]


def _parse(line: bytes, where: str, chunks: Sequence[Chunk]) -> tuple[int, ChunkScores]:
    """Return the number of a chunk and its scores."""
    try:
        row: Any = parse_json(line.decode(), "line")
        index, threshold, scores = row["chunk"], row["threshold"], row["scores"]
        whole = isinstance(index, int) and 0 <= index < len(chunks) and len(scores) == chunks[index].rows
        values = [math.nan if score is None else float(score) for score in scores]
        if whole:
            return index, ChunkScores(values, float(threshold))
    except (ValueError, KeyError, TypeError):
        pass
    raise InputError(f"{where} is corrupt; {REMEDY}")
