"""Places that a user or a file names: are they fit to be written to, and how does a name become a file name?"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from pathlib import Path

from llava.errors import InputError
from llava.files import explain_writing

MOST_BYTES = 255
"""Bytes of a file name on every file system in use."""
LONGEST_NAME = 100
"""Bytes of a file name made from data: many file systems take 255, and suffixes come on top."""


def check_output_file(path: str | Path) -> None:
    """Refuse a file that could not be written, before the work whose result it gets.

    Raises:
        InputError: When it is a folder, a device or a pipe, its folder takes no new files, or its name is too long.
    """
    path = Path(path)
    _check_names(path)
    with explain_writing(path):
        if path.is_dir():
            raise InputError(f"output {path} is a folder; give a file name")
        if path.exists() and not path.is_file():
            raise InputError(f"output {path} is no regular file; give a file name")
        _try_parent(path)


def check_output_folder(path: str | Path) -> None:
    """Refuse a folder in which nothing could be written, before the work whose results it gets.

    Raises:
        InputError: When it is a file, or takes no new files.
    """
    path = Path(path)
    _check_names(path)
    with explain_writing(path):
        if path.exists() and not path.is_dir():
            raise InputError(f"output {path} is a file; give a folder")
        _try_parent(path / "file")


def check_new_folder(path: str | Path) -> None:
    """Refuse a folder that cannot be made: one that has files, or whose place cannot be written to.

    Raises:
        InputError: Naming what stands in the way.
    """
    path = Path(path)
    _check_names(path)
    with explain_writing(path):
        if path.is_file():
            raise InputError(f"output {path} is a file; choose a folder that does not exist")
        if path.is_dir() and any(path.iterdir()):
            raise InputError(f"output folder {path} is not empty; choose another, or remove it")
        _try_parent(path)


def _check_names(path: Path) -> None:
    """Refuse names that no file system takes; some versions of Python do not say so before a file is opened."""
    try:
        long = any(len(os.fsencode(name)) > MOST_BYTES for name in path.parts)
    except UnicodeEncodeError:
        raise InputError(f"output {path} holds a character that no file name can have; choose another name") from None
    if long:
        raise InputError(f"output {path} has a name of more than {MOST_BYTES} bytes; choose a shorter one")
    if "\0" in str(path):
        raise InputError(f"output {path} holds a null character; choose another name")


def _try_parent(path: Path) -> None:
    """Write an unnamed file where `path` would be, or in the nearest folder above it that is there."""
    folder = path.absolute().parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise InputError(f"output {path} cannot be written: {folder} is a file; choose another place")
    with tempfile.TemporaryFile(dir=folder):
        return


def to_file_name(text: str, reserved: frozenset[str] = frozenset()) -> str:
    """Return a name from data as the name of a file: no path, not too long, and different for different names.

    A name of letters, digits, `_`, `-`, `.`, blanks and the like stays as it is. Anything else is replaced, and a
    digest of the whole name is added.

    Args:
        text: The name: of a scenario, a model, a data set.
        reserved: Names that other files have there.

    Example:
        >>> to_file_name("01-Illegal_Activitiy")
        '01-Illegal_Activitiy'
        >>> to_file_name("../../etc")
        'etc-74ccf3c5'
    """
    readable = re.sub(r"[^\w .,()+&'-]+", "-", text, flags=re.UNICODE).strip(" .-")
    short = readable.encode("utf-8", "ignore")[:LONGEST_NAME].decode("utf-8", "ignore").rstrip(" .-")
    if short == text and short and short not in reserved:
        return short
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{short}-{digest}" if short else digest


def file_exists(path: str | Path) -> bool:
    """Tell whether a file is there; a name that no file can have names none.

    Example:
        >>> file_exists("x" * 1000), file_exists("a\\0b")
        (False, False)
    """
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False


def path_exists(path: str | Path) -> bool:
    """Tell whether a file or a folder is there; a name that no file can have names none."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False
