"""Writing rows as JSON Lines, CSV or Parquet, as they come and in a file that is whole or not there."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from llava.errors import InputError
from llava.files import replace_file, write_jsonl

BLOCK = 2048
"""Rows of a Parquet row group: that many are held at a time."""
EXACT = 1 << 53
"""Whole numbers beyond it are not exact as floating-point numbers."""

Row = dict[str, Any]


def write_rows(path: str | Path, read: Callable[[], Iterator[Row]]) -> None:
    """Write rows atomically, in the form that the file's ending says: `.csv`, `.parquet`, else JSON Lines.

    Args:
        path: File to write.
        read: Returns the rows from the first one on; called twice for a table, whose columns must be known first.

    Raises:
        InputError: When the place cannot be written to, or a table cannot hold the rows.
        FailedRunError: When the disk is full.
    """
    ending = Path(path).suffix.lower()
    if ending == ".csv":
        write_csv(path, read)
    elif ending == ".parquet":
        write_parquet(path, read)
    else:
        write_jsonl(path, read())


def write_csv(path: str | Path, read: Callable[[], Iterator[Row]]) -> None:
    """Write rows as CSV: a column for every name that any of them has, in the order in which they come."""
    columns = list(dict.fromkeys(name for row in read() for name in row))
    with replace_file(path) as stream:
        text = io.TextIOWrapper(stream, encoding="utf-8", newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        for row in read():
            writer.writerow([render_cell(row.get(name)) for name in columns])
        text.detach()  # writes what is left; the file is closed by who opened it


def render_cell(value: Any) -> str:
    """Return a value as a cell: text as it is, nothing for null, everything else as JSON.

    Example:
        >>> [render_cell(value) for value in ("a,b", None, True, 0.5, ["x"])]
        ['a,b', '', 'true', '0.5', '["x"]']
    """
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def write_parquet(path: str | Path, read: Callable[[], Iterator[Row]]) -> None:
    """Write rows as Parquet, a row group at a time.

    Values of one column that are of several kinds, or of a kind that Parquet has no form for, are written as texts.

    Raises:
        InputError: When a column holds values that fit no type.
    """
    import pyarrow
    from pyarrow import parquet

    schema = find_schema(read())
    with replace_file(path) as stream:
        try:
            with parquet.ParquetWriter(stream, schema) as writer:
                for block in iter_blocks(read()):
                    arrays = [build_array([row.get(field.name) for row in block], field.type) for field in schema]
                    writer.write_table(pyarrow.Table.from_arrays(arrays, schema=schema))
        except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError, pyarrow.ArrowNotImplementedError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"the rows do not fit into a Parquet file ({reason}); give --output as .jsonl") from None


def iter_blocks(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Yield rows in blocks."""
    rows = iter(rows)
    while block := list(islice(rows, BLOCK)):
        yield block


def find_schema(rows: Iterable[Row]) -> Any:
    """Return the Parquet schema of rows: for each column the one type that holds all its values."""
    import pyarrow

    types: dict[str, Any] = {}
    wide: set[str] = set()
    for block in iter_blocks(rows):
        for name in dict.fromkeys(name for row in block for name in row):
            values = [row.get(name) for row in block]
            if any(isinstance(value, int) and abs(value) > EXACT for value in values):
                wide.add(name)
            types[name] = join_types(types.get(name, pyarrow.null()), find_type(values))
    text = pyarrow.string()
    return pyarrow.schema(
        [
            (name, text if pyarrow.types.is_null(kind) or (name in wide and kind == pyarrow.float64()) else kind)
            for name, kind in types.items()
        ]
    )


def find_type(values: list[Any]) -> Any:
    """Return the type of values; text where they have no common one that Parquet can hold."""
    import pyarrow

    try:
        kind = pyarrow.array(values).type
    except (pyarrow.ArrowException, OverflowError):
        return pyarrow.string()
    return kind if _is_writable(kind) else pyarrow.string()


def join_types(one: Any, other: Any) -> Any:
    """Return the type that holds the values of two; text where there is none."""
    import pyarrow

    if one == other:
        return one
    try:
        schemas = [pyarrow.schema([("x", kind)]) for kind in (one, other)]
        return pyarrow.unify_schemas(schemas, promote_options="permissive").field("x").type
    except pyarrow.ArrowException:
        return pyarrow.string()


def _is_writable(kind: Any) -> bool:
    """Tell whether Parquet can hold a type: not one of objects without a field."""
    import pyarrow

    parts = [kind.field(i).type for i in range(kind.num_fields)]
    return not (pyarrow.types.is_struct(kind) and not parts) and all(map(_is_writable, parts))


def build_array(values: list[Any], kind: Any) -> Any:
    """Return the values of a column as an array of its type."""
    import pyarrow

    if pyarrow.types.is_string(kind):
        values = [value if value is None or isinstance(value, str) else render_cell(value) for value in values]
    return pyarrow.array(values, type=kind)
