"""Labels and flags as people write them: read strictly, and only here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llava.errors import InputError
from llava.fields import describe_value

FLAGS = {"true": True, "1": True, "false": False, "0": False}
YES_NO = {"yes": True, "no": False}
SIDES = {"unsafe": True, "harmful": True, "safe": False, "harmless": False, "unharmful": False, "benign": False}
"""Words that name a side; True is the harmful one."""

DIRECTIONS = {
    "harmful": True,
    "is_harmful": True,
    "unsafe": True,
    "is_unsafe": True,
    "is_safe": False,
    "safe": False,
}
"""Columns of true or false → whether true means harmful."""
SIDE_COLUMN = "label"
"""Column that names the side by a word. A number there says nothing: 1 is safe in some data sets, harmful in others."""


def parse_flag(value: Any, *, yes_no: bool = False) -> bool | None:
    """Read true or false, 1 or 0, as JSON or as text in any case; None for anything else.

    Args:
        value: What a row holds.
        yes_no: Whether yes and no are read too.

    Example:
        >>> parse_flag("False"), parse_flag(1), parse_flag("yes"), parse_flag(1.0)
        (False, True, None, None)
    """
    if not isinstance(value, (bool, int, str)):
        return None
    if isinstance(value, int):
        return bool(value) if value in (0, 1) else None
    word = value.strip().lower()
    return FLAGS.get(word, YES_NO.get(word) if yes_no else None)


def parse_truth(value: Any, what: str, *, yes_no: bool = True) -> bool:
    """Read what must be true or false; see `parse_flag`.

    Raises:
        InputError: For anything else; `what` opens the message.

    Example:
        >>> parse_truth("No", "row 1"), parse_truth(True, "row 1")
        (False, True)
    """
    flag = parse_flag(value, yes_no=yes_no)
    if flag is None:
        raise InputError(f"{what} is {show_value(value)}; write true or false")
    return flag


def parse_side(value: Any) -> bool | None:
    """Read a word that names a side: True for harmful, False for harmless, None for anything else.

    Example:
        >>> parse_side("Unsafe"), parse_side("benign"), parse_side("fraud"), parse_side(1)
        (True, False, None, None)
    """
    return SIDES.get(value.strip().lower()) if isinstance(value, str) else None


def label_columns(row: Mapping[str, Any]) -> list[str]:
    """Return the columns of a row that say whether it is harmful."""
    return [column for column in (*DIRECTIONS, SIDE_COLUMN) if column in row]


def read_label(row: Mapping[str, Any], where: object, *, yes_no: bool = False) -> bool | None:
    """Return whether a row is harmful, from whichever of its columns says so; None when none does.

    A column `label` that names no side is passed over where another column says it.

    Raises:
        InputError: When a value is neither true nor false, `label` alone names no side, or two columns contradict
            each other.

    Example:
        >>> read_label({"is_safe": 1}, "line 1"), read_label({"label": "unsafe"}, "line 1"), read_label({}, "line 1")
        (False, True, None)
    """
    said = {}
    for column, positive in DIRECTIONS.items():
        if column not in row:
            continue
        said[column] = parse_truth(row[column], f"{where}: {column!r}", yes_no=yes_no) is positive
    if SIDE_COLUMN in row:
        side = parse_side(row[SIDE_COLUMN])
        if side is not None:
            said[SIDE_COLUMN] = side
        elif not said:
            raise InputError(
                f"{where}: {SIDE_COLUMN!r} is {show_value(row[SIDE_COLUMN])}, which names no side; write safe or "
                "unsafe, or call the column harmful or is_safe"
            )
    if len(set(said.values())) > 1:
        raise InputError(f"{where}: {' and '.join(said)} contradict each other; keep the one that is right")
    return next(iter(said.values()), None)


def show_value(value: Any) -> str:
    """Return a wrong value as a message shows it."""
    return "None" if value is None else describe_value(value)
