"""Column names: what they are also called, and which of a file's columns nobody reads."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any

from llava.errors import InputError
from llava.fields import describe_value

ALIASES = {
    "prompt": ("prompt", "question"),
    "response": ("response", "answer"),
    "image": ("image", "images", "image_path"),
    "scenario": ("scenario", "category"),
}
"""What a row is asked for → the columns that may hold it, the preferred one first."""

MEDIA = ("video", "videos", "video_path", "audio", "audios", "audio_path")
"""Columns of what no model here is shown."""

MEANINGFUL = frozenset(
    {"label", "labels", "type", "system", "system_prompt", "weight", "split", "harmful", "is_harmful", "safe"}
    | {"is_safe", "unsafe", "is_unsafe", "toxic", "toxicity", "flagged", "history", "context", "messages"}
    | {"image_type", "image", "images", "image_path", *MEDIA}
)
"""Columns that change what a row means: that one of them is not read must be said."""

CONTEXT = frozenset(
    {"system", "system_prompt", "history", "context", "messages", "conversations"}
    | {"image", "images", "image_path", *MEDIA}
)
"""Columns of what else was shown or said before a response."""

NOTHING: tuple[Any, ...] = (None, "", [], {})
"""Values that stand for an empty cell."""
SHOWN = 10
"""Columns that a message names."""


@lru_cache(maxsize=256)
def match_columns(columns: tuple[str, ...], known: tuple[str, ...]) -> dict[str, str]:
    """Find the known names that columns were meant to have, but for case and blanks around them.

    Args:
        columns: Columns of a file.
        known: Names that somebody reads.

    Returns:
        Column → known name, for columns that are spelled otherwise. One that is there as it should be, or that two
        columns could be, is not in it.

    Example:
        >>> match_columns(("Prompt ", "id", "ID"), ("prompt", "id"))
        {'Prompt ': 'prompt'}
    """
    found = {}
    for name in known:
        meant = [column for column in columns if column.strip().casefold() == name.casefold()]
        if name not in columns and len(meant) == 1:
            found[meant[0]] = name
    return found


def rename_columns(row: Mapping[str, Any], known: tuple[str, ...]) -> dict[str, Any]:
    """Return a row whose columns are called as they are known; see `match_columns`.

    Example:
        >>> rename_columns({"Prompt": "?", "Note": 1}, ("prompt",))
        {'prompt': '?', 'Note': 1}
    """
    names = match_columns(tuple(row), known)
    return {names.get(column, column): value for column, value in row.items()} if names else dict(row)


def find_column(row: Mapping[str, Any], name: str) -> str | None:
    """Return the column that holds `name`, by any of its aliases: the first that is not null, else the first there.

    Example:
        >>> find_column({"question": "?", "prompt": None}, "prompt"), find_column({}, "prompt")
        ('question', None)
    """
    there = [alias for alias in ALIASES.get(name, (name,)) if alias in row]
    return next((alias for alias in there if row[alias] is not None), there[0] if there else None)


def list_images(row: Mapping[str, Any], where: object) -> list[str]:
    """Return the paths of a row's images, from whichever column names them.

    Raises:
        InputError: When a value is neither a path nor a list of paths, or two columns name different images.

    Example:
        >>> list_images({"images": ["a.png"]}, "row 1"), list_images({"image": None}, "row 1")
        (['a.png'], [])
    """
    found: dict[str, list[str]] = {}
    for column in ALIASES["image"]:
        value = row.get(column)
        paths = value if isinstance(value, list) else [] if value is None else [value]
        for path in paths:
            if not isinstance(path, str) or not path.strip():
                shown = repr(path) if isinstance(path, (str, int, float)) else describe_value(path)
                raise InputError(f"{where}: {column} is {shown}; it must be a path or a list of paths")
        if paths:
            found[column] = paths
    if len({tuple(paths) for paths in found.values()}) > 1:
        raise InputError(f"{where}: {' and '.join(found)} name different images; keep one of the columns")
    return next(iter(found.values()), [])


def refuse_media(row: Mapping[str, Any], where: object) -> None:
    """Refuse a row with a video or a sound, which no model here is shown.

    Raises:
        InputError: Naming the column.
    """
    for column in MEDIA:
        if row.get(column) not in NOTHING:
            raise InputError(f"{where} has a column {column!r}, which is not read; only texts and images are")


class UnreadColumns:
    """Collects the columns of a file that nobody reads, to be named once."""

    def __init__(self, source: str, meaningful: Collection[str] = MEANINGFUL) -> None:
        """Start empty.

        Args:
            source: What the rows come from, for messages.
            meaningful: Columns, in small letters, that change what a row means.
        """
        self.source = source
        self.meaningful = meaningful
        self.columns: dict[str, None] = {}

    def see(self, row: Mapping[str, Any], read: Collection[str | None]) -> None:
        """Take note of a row's columns that hold something and were not read."""
        if new := [c for c in row if c not in self.columns and c not in read and row[c] not in NOTHING]:
            self.columns.update(dict.fromkeys(new))

    def warn(self) -> str:
        """Return the sentence about columns that change what a row means; empty without any."""
        names = _list_names([column for column in self.columns if column.strip().casefold() in self.meaningful])
        return f"{self.source}: these columns are not read, as if they were not there: {names}" if names else ""

    def note(self) -> str:
        """Return the sentence about all other columns; empty without any."""
        names = _list_names([column for column in self.columns if column.strip().casefold() not in self.meaningful])
        return f"{self.source}: these columns are kept and not read: {names}" if names else ""

    def log(self, logger: logging.Logger) -> None:
        """Log both sentences, where there are any."""
        if warning := self.warn():
            logger.warning("%s", warning)
        if note := self.note():
            logger.info("%s", note)


def _list_names(columns: list[str]) -> str:
    """Return columns by name, as many as a message can take."""
    named = [column[:40] for column in columns if column.strip()]
    more = f" and {len(named) - SHOWN} more" if len(named) > SHOWN else ""
    return ", ".join(named[:SHOWN]) + more
