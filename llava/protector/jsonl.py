"""`detect` and `detoxify` over files of rows: the same rows come out as JSON Lines, with the guard's fields added."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava.data.rows.columns import ALIASES, CONTEXT, UnreadColumns, find_column, rename_columns
from llava.data.rows.labels import parse_flag
from llava.data.rows.reading import check_plain, iter_rows
from llava.errors import InputError
from llava.fields import describe_value
from llava.files import write_jsonl
from llava.protector.guards.base import Guard, is_flagged, score_responses

if TYPE_CHECKING:
    from llava.protector.detoxifier import Detoxifier

logger = logging.getLogger(__name__)

CHUNK = 256
"""Rows between two moves of the progress bar; long enough that sorting by length inside a chunk pays off."""


KNOWN = (*ALIASES["prompt"], *ALIASES["response"], "flagged")
"""Columns that are read."""


def read_responses(path: str | Path, flags: bool = False) -> list[dict[str, Any]]:
    """Read rows that have a text `response` (or `answer`) and, where there is one, a text `prompt` (or `question`).

    Columns that change what a row means and are not read (an image, a system text) are named in a warning.

    Args:
        path: JSON Lines, JSON, CSV or Parquet, also compressed.
        flags: Whether `flagged` is read too, as true or false; null stands for a row that could not be scored.

    Returns:
        The rows, each with `response`, and `prompt` where it is known, whatever the file calls them.

    Raises:
        InputError: When the file is missing, corrupt or empty, or a row's fields are of another kind; the message names
            the line.
    """
    return list(iter_responses(path, flags))


def iter_responses(path: str | Path, flags: bool = False) -> Iterator[dict[str, Any]]:
    """Yield what `read_responses` returns, one row at a time."""
    found = False
    unread = UnreadColumns(f"input file {path}", CONTEXT)
    for where, raw in iter_rows(path, "input file"):
        here = f"input file {where}"
        check_plain(raw, here)
        row = rename_columns(raw, KNOWN)
        prompt, response = find_column(row, "prompt"), find_column(row, "response")
        if response is None or not isinstance(row[response], str):
            raise InputError(f"{here} has no text in 'response'; every row needs one")
        row["response"] = row[response]
        if prompt is not None:
            if not isinstance(row[prompt], str):
                raise InputError(f"{here}: {prompt!r} is not text; make it a string or leave it out")
            row["prompt"] = row[prompt]
        read = {prompt, response, "prompt", "response"}
        if flags and row.get("flagged") is not None and not (where.table and row["flagged"] == ""):
            flag = parse_flag(row["flagged"])
            if flag is None:
                raise InputError(f"{here}: 'flagged' is {describe_value(row['flagged'])}; write true or false")
            row["flagged"] = flag
            read.add("flagged")
        unread.see(row, read)
        found = True
        yield row
    if not found:
        raise InputError(f"input file {path} has no rows; write one JSON object a line")
    unread.log(logger)


def detect_rows(
    detector: Guard, rows: list[dict[str, Any]], threshold: float | None = None
) -> Iterator[dict[str, Any]]:
    """Yield each row with `harm_score` (1 = harmful; null when it could not be scored) and `flagged`.

    A row that could not be scored is flagged: it must not pass as harmless.

    Args:
        detector: Any guard.
        rows: Each with a text `response` and, where it is known, a text `prompt`.
        threshold: Harm score from which a row is flagged; None takes the guard's own.
    """
    limit = detector.threshold if threshold is None else threshold
    for start in range(0, len(rows), CHUNK):
        chunk = rows[start : start + CHUNK]
        for row, score in zip(chunk, score_rows(detector, chunk), strict=True):
            yield add_score(row, score, limit)


def score_rows(detector: Guard, rows: Sequence[dict[str, Any]]) -> list[float]:
    """Return the harm score of each row, in one call of the guard: 1 = harmful, NaN = could not be scored."""
    return score_responses(detector, [row["response"] for row in rows], [row.get("prompt", "") for row in rows])


def add_score(row: dict[str, Any], score: float, threshold: float) -> dict[str, Any]:
    """Return a row with `harm_score` and `flagged`.

    Example:
        >>> add_score({"response": "x"}, 0.25, 0.5), add_score({"response": ""}, math.nan, 0.5)["harm_score"]
        ({'response': 'x', 'harm_score': 0.25, 'flagged': False}, None)
    """
    return {**row, "harm_score": None if math.isnan(score) else score, "flagged": is_flagged(score, threshold)}


def detoxify_rows(
    detoxifier: Detoxifier, rows: list[dict[str, Any]], batch_size: int = 8, max_new_tokens: int = 256
) -> Iterator[dict[str, Any]]:
    """Yield each row with `detoxified`; rows that `detect` found harmless (`flagged` false) keep their response."""
    for start in range(0, len(rows), CHUNK):
        chunk = rows[start : start + CHUNK]
        todo = [row for row in chunk if row.get("flagged") is not False]
        rewrites = iter(
            detoxifier.rewrite(
                [row.get("prompt", "") for row in todo],
                [row["response"] for row in todo],
                batch_size=batch_size,
                max_new_tokens=max_new_tokens,
            )
        )
        for row in chunk:
            yield {**row, "detoxified": row["response"] if row.get("flagged") is False else next(rewrites)}


def write_rows(path: str | Path, rows: Iterator[dict[str, Any]], total: int, label: str) -> list[dict[str, Any]]:
    """Write the rows atomically when all are there, with a progress bar on a terminal's stderr."""
    from tqdm import tqdm

    done = list(tqdm(rows, total=total, desc=label, unit="row", disable=None))
    write_jsonl(path, done)
    return done
