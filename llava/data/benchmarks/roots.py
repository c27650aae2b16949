"""Finding a benchmark's files below the folder that the user names, or below the current one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from llava.errors import InputError
from llava.files import expand_home


def find_below(
    data_root: str | Path | None, entries: Sequence[str], subfolders: Sequence[str], benchmark: str, remedy: str
) -> Path:
    """Find the first of several files or folders below a data root.

    Args:
        data_root: Folder that the user named; None for the current folder.
        entries: Names to look for, the preferred one first.
        subfolders: Folders below the root to look in, in order (`""` is the root itself).
        benchmark: The benchmark's name, for the error message.
        remedy: Where the data come from, for the error message.

    Returns:
        Path of the entry.

    Raises:
        InputError: When the root does not exist or holds none of the entries.
    """
    root = check_root(data_root)
    for entry in entries:
        for subfolder in subfolders:
            path = root / subfolder / entry
            if path.exists():
                return path
    where = f"in {root}" if data_root is not None else "below the current folder"
    raise InputError(f"benchmark {benchmark}: no {' or '.join(entries)} {where}; {remedy}, then give --data-root")


def check_root(data_root: str | Path | None) -> Path:
    """Return the data root, the current folder when none is named.

    Raises:
        InputError: When it is not a folder.
    """
    root = Path(expand_home("." if data_root is None else data_root))
    try:
        there = root.is_dir()
    except OSError:
        there = False
    if not there:
        raise InputError(f"data root {root} is not a folder; check --data-root")
    return root
