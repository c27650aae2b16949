"""Reading CSV files of questions: one way for all benchmarks, with messages that name file and line."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from llava.errors import InputError


def iter_csv(path: str | Path, what: str = "CSV file", required: Sequence[str] = ()) -> Iterator[tuple[int, dict]]:
    """Yield `(line_number, row)` for each row of a CSV file with a header.

    Args:
        path: CSV file in UTF-8, with or without a byte order mark.
        what: What the file is, for the error message ("FigStep question file").
        required: Columns that must be there.

    Yields:
        The line on which the row ends (1 is the header) and the row: column → text.

    Raises:
        InputError: When the file is missing, not UTF-8, lacks a required column, names a column twice, or has a
            row with another number of cells than the header.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{what} {path} does not exist; check the path")
    try:
        # utf-8-sig: spreadsheets put a byte order mark before the first column's name.
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            header = next(reader, [])
            _check_header(header, path, what, required)
            for cells in reader:
                if not cells:
                    continue
                if len(cells) != len(header):
                    raise InputError(
                        f"{what} {path} line {reader.line_num} has {len(cells)} cells for {len(header)} columns; "
                        "quote cells that hold commas"
                    )
                yield reader.line_num, dict(zip(header, cells, strict=True))
    except UnicodeDecodeError as error:
        raise InputError(f"{what} {path} is not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except csv.Error as error:
        raise InputError(f"{what} {path} line {reader.line_num} is not valid CSV ({error}); mend that line") from None


def _check_header(header: list[str], path: Path, what: str, required: Sequence[str]) -> None:
    """Refuse a header that lacks a required column or names one twice."""
    missing = [column for column in required if column not in header]
    if missing:
        raise InputError(f"{what} {path} has no column {', '.join(missing)}; its first line must name the columns")
    twice = sorted({column for column in header if header.count(column) > 1})
    if twice:
        raise InputError(f"{what} {path} names the column {twice[0]!r} twice; rename one")
