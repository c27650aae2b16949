"""Reading CSV: one way for all files, with messages that name file and line."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

from llava.data.rows.columns import match_columns
from llava.data.rows.streams import iter_lines
from llava.errors import InputError

DELIMITERS = (",", ";", "\t")
"""What may stand between two cells, the usual one first."""
MOST_HEADER_LINES = 20
"""Lines that a header may take: a quoted name can hold line breaks."""

# The library's own limit of 131,072 characters is less than a prompt with many examples.
csv.field_size_limit(1 << 30)


def iter_csv(path: str | Path, what: str = "CSV file", required: Sequence[str] = ()) -> Iterator[tuple[int, dict]]:
    """Yield `(line_number, row)` for each row of a CSV file with a header.

    Cells are parted by commas, semicolons or tabs, whichever parts the header. Blanks around a column's name do not
    count, nor does its case where a required column is meant.

    Args:
        path: CSV file in UTF-8, with or without a byte order mark, also compressed.
        what: What the file is, for the error message ("FigStep question file").
        required: Columns that must be there.

    Yields:
        The line on which the row ends (1 is the header) and the row: column → text.

    Raises:
        InputError: When the file is missing, not UTF-8, lacks a required column, names a column twice, or has a
            row with another number of cells than the header.
    """
    yield from parse_csv(iter_lines(Path(path), what), f"{what} {path}", required)


def parse_csv(lines: Iterable[str], where: str, required: Sequence[str] = ()) -> Iterator[tuple[int, dict]]:
    """Yield `(line_number, row)` for the lines of a CSV file; see `iter_csv`."""
    lines = iter(lines)
    first = _take_header(lines)
    reader = csv.reader(chain(first, lines), delimiter=find_delimiter("".join(first)), strict=True)
    try:
        header: list[str] = []
        while not header and reader.line_num < len(first):
            header = [name.strip() for name in next(reader, [])]
        header = _check_header(header, where, required)
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header):
                raise InputError(
                    f"{where} line {reader.line_num} has {len(cells)} cells for {len(header)} columns; "
                    "quote cells that hold the delimiter"
                )
            yield reader.line_num, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise InputError(f"{where} line {reader.line_num} is not valid CSV ({error}); mend that line") from None


def find_delimiter(header: str) -> str:
    r"""Return what parts the cells of a header; the comma where nothing does.

    Example:
        >>> find_delimiter("prompt;harmful\n"), find_delimiter('"a;b",c'), find_delimiter("prompt")
        (';', ',', ',')
    """
    widths = {}
    for delimiter in DELIMITERS:
        try:
            widths[delimiter] = max(map(len, csv.reader(header.splitlines(True), delimiter=delimiter, strict=True)))
        except (csv.Error, ValueError):
            widths[delimiter] = 0
    return max(DELIMITERS, key=lambda delimiter: widths[delimiter])


def _take_header(lines: Iterator[str]) -> list[str]:
    """Return the blank lines at the start and those of the header, up to its last quotation mark."""
    taken: list[str] = []
    for line in lines:
        taken.append(line)
        text = "".join(taken)
        if text.strip() and (text.count('"') % 2 == 0 or len(taken) >= MOST_HEADER_LINES):
            break
    return taken


def _check_header(header: list[str], where: str, required: Sequence[str]) -> list[str]:
    """Return the header with required columns as they are called; refuse one that lacks one or names one twice."""
    twice = sorted({column for column in header if header.count(column) > 1})
    if twice:
        raise InputError(f"{where} names the column {twice[0]!r} twice; rename one")
    names = match_columns(tuple(header), tuple(required))
    header = [names.get(column, column) for column in header]
    missing = [column for column in required if column not in header]
    if missing:
        raise InputError(f"{where} has no column {', '.join(missing)}; its first line must name the columns")
    return header
