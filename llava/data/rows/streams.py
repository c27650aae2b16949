"""Lines of a text file that others have written, compressed or not, with every fault named."""

from __future__ import annotations

import contextlib
import gzip
import lzma
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from llava.errors import InputError
from llava.files import explain_reading

COMPRESSIONS = {".gz": b"\x1f\x8b", ".xz": b"\xfd7zXZ\x00"}
"""Compressed files by their ending, and how they begin."""
SAVED_DATASET = ("dataset_info.json", "dataset_dict.json", "state.json")
"""Files that `Dataset.save_to_disk` writes beside the rows."""

LONGEST_LINE = 1 << 28
"""Characters of a line at most: a small compressed file can unpack to more than the memory holds."""


@dataclass(frozen=True)
class Where:
    """Place of a row, for messages and for stable pair ids."""

    source: str
    """File or hub id."""
    number: int
    """Line or row number, from 1, counted over the whole source."""
    unit: str = "line"
    """`line` for files whose lines can be counted, else `row`."""
    table: bool = False
    """Whether every value is a text, since the file is CSV."""

    def __str__(self) -> str:
        return f"{self.source} {self.unit} {self.number}"


def plain_name(path: Path) -> str:
    """Return a file's name in lower case, without what its compression adds.

    Example:
        >>> plain_name(Path("x/Rows.JSONL.gz"))
        'rows.jsonl'
    """
    name = path.name.lower()
    for suffix in COMPRESSIONS:
        name = name.removesuffix(suffix)
    return name


def refuse_saved_dataset(folder: Path, what: str) -> None:
    """Refuse a folder that `Dataset.save_to_disk` wrote.

    Raises:
        InputError: When it is one.
    """
    info, whole, state = ((folder / name).is_file() for name in SAVED_DATASET)
    if whole or (info and state):
        raise InputError(
            f"{what} {folder} is a folder of Dataset.save_to_disk, whose Arrow files are not read; write its rows to a "
            "file with Dataset.to_json and give that"
        )


def read_head(path: Path, what: str) -> bytes:
    """Return the first bytes of a file.

    Raises:
        InputError: When it is missing, a folder or not readable.
    """
    with explain_reading(what, path):
        if path.is_dir():
            refuse_saved_dataset(path, what)
        with path.open("rb") as stream:
            return stream.read(8)


def iter_lines(path: Path, what: str) -> Iterator[str]:
    """Yield the lines of a UTF-8 file with their ends, with or without a byte order mark, gzip or xz unpacked.

    Lines end as in a text editor: at a line feed, a carriage return, or both.

    Raises:
        InputError: When the file is missing, a folder, not readable, damaged or not UTF-8.
    """
    head = read_head(path, what)
    kind = next(
        (s for s, magic in COMPRESSIONS.items() if path.name.lower().endswith(s) or head.startswith(magic)), None
    )
    with contextlib.ExitStack() as stack:
        with _explain(path, what, kind):
            stream = stack.enter_context(_open(path, kind))
        while True:
            # Reading alone is explained: what the caller does with a line is no fault of the file.
            with _explain(path, what, kind):
                line = stream.readline(LONGEST_LINE)
            if not line:
                return
            if len(line) == LONGEST_LINE:
                raise InputError(
                    f"{what} {path} has a line of {LONGEST_LINE:,} characters or more; write one row a line"
                )
            yield line


def _open(path: Path, kind: str | None) -> TextIO:
    """Open a file as text; no line end is changed."""
    if kind is None:
        return path.open(encoding="utf-8-sig", newline="")
    open_packed = gzip.open if kind == ".gz" else lzma.open
    return open_packed(path, "rt", encoding="utf-8-sig", newline="")


@contextlib.contextmanager
def _explain(path: Path, what: str, kind: str | None) -> Iterator[None]:
    """Turn what goes wrong while a file is read into one line."""
    with explain_reading(what, path):
        try:
            yield
        except (gzip.BadGzipFile, EOFError, zlib.error, lzma.LZMAError) as error:
            raise InputError(
                f"{what} {path} cannot be read (damaged {kind} file: {error}); download it again"
            ) from None
