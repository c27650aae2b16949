"""The one reader of rows: JSON Lines, JSON, CSV or Parquet, told by what is in the file rather than by its name."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from llava.data.rows.streams import Where, iter_lines, plain_name, read_head
from llava.data.rows.tables import parse_csv
from llava.errors import InputError
from llava.fields import describe_value
from llava.files import parse_json

SUFFIXES = (".jsonl", ".csv", ".json", ".tsv", ".parquet")
"""Endings of files of rows; all but Parquet may be compressed too (`.gz`, `.xz`)."""
TABLES = (".csv", ".tsv")
PARQUET_MAGIC = b"PAR1"
PARQUET_ROWS = 1024
"""Rows of a Parquet file that are held at a time."""
OTHER_FILES = {b"PK\x03\x04": "a ZIP archive or a spreadsheet", b"ARROW1": "an Arrow file", b"SQLite": "a database"}
"""What else people have rows in, by its first bytes."""

_SURROGATE = re.compile(r"\\u[dD][89abAB]..(?:\\u[dD][c-fC-F]..)?|\\u[dD][c-fC-F]..")
"""Escapes of surrogates: a pair, or half of one."""

Rows = Iterator[tuple[Where, dict[str, Any]]]


def is_row_file(path: str | Path) -> bool:
    """Tell whether a file's name ends as files of rows do.

    Example:
        >>> is_row_file("a.jsonl.gz"), is_row_file("A.CSV"), is_row_file("a.txt")
        (True, True, False)
    """
    return plain_name(Path(path)).endswith(SUFFIXES)


def iter_rows(path: str | Path, what: str = "file", *, keyed: bool = False, whole_text: bool = False) -> Rows:
    """Yield each row of a file with its place.

    JSON Lines and a JSON list are told apart by their content. A table is read as CSV when its name says so. One
    object alone in a `.json` file is refused, for it can be many things.

    Args:
        path: File of rows.
        what: What the file is, for messages ("question file").
        keyed: Whether an object of id → row is read too; the id becomes the row's `id`.
        whole_text: Refuse JSON with half a surrogate pair, which is read as U+FFFD otherwise.

    Raises:
        InputError: When the file is missing, a folder, damaged, not UTF-8, or a row is no object; the message names
            the place.
    """
    path = Path(path)
    head = read_head(path, what)
    if head.startswith(PARQUET_MAGIC) or path.name.lower().endswith(".parquet"):
        yield from _iter_parquet(path, what)
        return
    for magic, kind in OTHER_FILES.items():
        if head.startswith(magic):
            raise InputError(f"{what} {path} is {kind}; save its rows as JSON Lines or CSV")
    lines = iter_lines(path, what)
    blank, first = _take_first(lines)
    is_table = plain_name(path).endswith(TABLES)
    if is_table and not _is_object(first):
        for number, row in parse_csv(chain(blank, [first] if first else [], lines), f"{what} {path}"):
            yield Where(str(path), number, table=True), row
    elif first:
        checked = _refuse_half_pairs(chain([first], lines), f"{what} {path}", len(blank) + 1) if whole_text else lines
        first = next(checked) if whole_text else first
        yield from _iter_json(path, what, len(blank) + 1, first, checked, keyed)


def check_plain(row: dict[str, Any], where: object) -> None:
    """Refuse a row that could not be written as JSON again: Parquet has dates and bytes, which JSON has not.

    Raises:
        InputError: Naming the column.
    """
    for column, value in row.items():
        if isinstance(value, (str, int, float, type(None))):
            continue
        try:
            json.dumps(value)
        except (TypeError, ValueError):
            raise InputError(
                f"{where}: {column!r} is {describe_value(value)} that JSON has no form for; drop it"
            ) from None


def _refuse_half_pairs(lines: Iterable[str], where: str, number: int) -> Iterator[str]:
    r"""Yield lines of JSON, and refuse one with half a surrogate pair, such as `"\ud83d"` alone."""
    for place, line in enumerate(lines, start=number):
        if any(_is_half(match, line) for match in _SURROGATE.finditer(line)):
            raise InputError(f"{where} line {place} holds half of a surrogate pair, which no tokenizer takes; mend it")
        yield line


def _is_half(match: re.Match[str], line: str) -> bool:
    """Tell whether a match is an escape, not a backslash and letters, and half a pair."""
    start = match.start()
    while start > 0 and line[start - 1] == "\\":
        start -= 1
    return (match.start() - start) % 2 == 0 and len(match[0]) < len("\\ud83d\\ude00")


def _take_first(lines: Iterator[str]) -> tuple[list[str], str]:
    """Return the blank lines at the start, and the first line with text; empty when there is none."""
    blank: list[str] = []
    for line in lines:
        if line.strip():
            return blank, line
        blank.append(line)
    return blank, ""


def _is_object(line: str) -> bool:
    """Tell whether a line is a whole JSON object."""
    if not line.lstrip().startswith("{"):
        return False
    try:
        return isinstance(parse_json(line, "line"), dict)
    except InputError:
        return False


def _iter_json(path: Path, what: str, number: int, first: str, lines: Iterator[str], keyed: bool) -> Rows:
    """Yield the rows of JSON Lines or of one JSON value, whose first line with text is at hand."""
    is_document = plain_name(path).endswith(".json")
    if not first.lstrip().startswith(("{", "[")) and not is_document:
        yield from _iter_json_lines(path, what, number, chain([first], lines))
        return
    if _is_object(first):
        blank, second = _take_first(lines)
        if second or not is_document:
            rest = chain(blank, [second] if second else [], lines)
            yield from _iter_json_lines(path, what, number, chain([first], rest))
            return
        whole = first
    else:
        whole = "".join(chain([first], lines))
    try:
        value = parse_json(whole, f"{what} {path}", "mend or re-download it")
    except InputError:
        if is_document:
            raise
        # JSON Lines after all, whose first line is at fault.
        yield from _iter_json_lines(path, what, number, iter([first]))
        return
    if isinstance(value, list) and value and not is_document and not isinstance(value[0], dict):
        raise InputError(f"{what} {path} line {number} is not a JSON object; write one object a line")
    yield from _iter_document(path, what, value, keyed)


def _iter_json_lines(path: Path, what: str, number: int, lines: Iterator[str]) -> Rows:
    """Yield the objects of lines, of which the first has the given number."""
    for place, line in enumerate(lines, start=number):
        if not line.strip():
            continue
        # A header of commas, as tables have it, is no JSON; the remedy for that is another name.
        table = place == number and line.lstrip()[0] not in '{["' and any(mark in line for mark in ",;\t")
        remedy = "a CSV file ends in .csv" if table else "mend that line"
        row = parse_json(line, f"{what} {path} line {place}", remedy)
        if not isinstance(row, dict):
            raise InputError(f"{what} {path} line {place} is not a JSON object; write one object a line")
        yield Where(str(path), place), row


def _iter_document(path: Path, what: str, value: Any, keyed: bool) -> Rows:
    """Yield the rows of one JSON value: a list, or an object of id → row."""
    is_document = plain_name(path).endswith(".json")
    if isinstance(value, dict) and not is_document and not any(isinstance(row, dict) for row in value.values()):
        value = [value]  # a single row of JSON Lines, written over several lines
    elif isinstance(value, dict) and keyed:
        value = [{"id": key, **row} if isinstance(row, dict) else row for key, row in value.items()]
    if not isinstance(value, list):
        form = "neither a list of rows nor an object of id → row" if keyed else "not a JSON list of objects"
        raise InputError(f"{what} {path} is {form}; save it as JSON Lines, in a file that ends in .jsonl")
    for number, row in enumerate(value, start=1):
        if not isinstance(row, dict):
            raise InputError(f"{what} {path} row {number} is not an object; write a list of objects")
        yield Where(str(path), number, "row"), row


def _iter_parquet(path: Path, what: str) -> Rows:
    """Yield the rows of a Parquet file, a batch at a time."""
    import pyarrow
    from pyarrow import parquet

    number = 0
    try:
        # A file in memory is closed with the reader; one that is mapped would be kept open by its batches. Without
        # `pre_buffer` a row group, which may be the whole file, is not held as a whole.
        with parquet.ParquetFile(path, pre_buffer=False) as file:
            for batch in file.iter_batches(batch_size=PARQUET_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    yield Where(str(path), number, "row"), row
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{what} {path} is not a Parquet file ({error}); download it again") from None
