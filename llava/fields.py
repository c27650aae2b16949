"""The one strict reader of typed fields: JSON objects and YAML mappings whose values others have written."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from llava.errors import InputError

Default = TypeVar("Default")
REQUIRED: Any = object()
"""Stands for a field that has no default."""
SHOWN = 60
"""Characters of a wrong value that a message shows."""


class Fields:
    """Reads the fields of one object, each by its type, and says in one line what is wrong and where.

    A field that is absent takes its default; without one it is an error. `null` counts as absent where the default is
    None, and is an error elsewhere. Nothing is converted: `"8"` is no number, `1` is no flag, `true` is no number, and
    a number must be finite.

    Example:
        >>> row = Fields({"id": "7", "score": 0.25}, "records.jsonl line 3")
        >>> row.text("id"), row.number("score", least=0, most=1), row.text("reason", None)
        ('7', 0.25, None)
        >>> Fields({"score": "high"}, "records.jsonl line 3").number("score")
        Traceback (most recent call last):
        llava.errors.InputError: records.jsonl line 3: 'score' is 'high', not a number; mend it
    """

    def __init__(self, values: Any, where: str, remedy: str = "mend it"):
        """Take an object.

        Args:
            values: What a reader returned; anything but a mapping is an error.
            where: File and line, for messages.
            remedy: What the user can do, for messages.

        Raises:
            InputError: When `values` is no mapping.
        """
        if not isinstance(values, Mapping):
            raise InputError(f"{where} is {describe_value(values)}, not an object of fields; {remedy}")
        self.values = values
        self.where = where
        self.remedy = remedy

    def __contains__(self, name: str) -> bool:
        """Tell whether the field is there, be it null."""
        return name in self.values

    def require(self, *names: str) -> None:
        """Refuse an object that lacks a field, be it one that may be null.

        Raises:
            InputError: Naming the first one that is absent.
        """
        for name in names:
            if name not in self.values:
                raise InputError(f"{self.where} has no '{name}'; {self.remedy}")

    def refuse(self, name: str, wanted: str) -> InputError:
        """Return the error for a field, to be raised; `wanted` says what it should be."""
        return InputError(
            f"{self.where}: '{name}' is {describe_value(self.values.get(name))}, not {wanted}; {self.remedy}"
        )

    def take(self, name: str, default: Any, wanted: str) -> tuple[bool, Any]:
        """Return whether a field has a value, and that value or the default.

        Raises:
            InputError: When it is absent and has no default, or null although null means nothing here.
        """
        if name not in self.values:
            if default is REQUIRED:
                raise InputError(f"{self.where} has no '{name}' ({wanted}); {self.remedy}")
            return False, default
        value = self.values[name]
        if value is None and default is None:
            return False, None
        return True, value

    def text(self, name: str, default: Default = REQUIRED, *, choices: Collection[str] = ()) -> str | Default:
        """Return a text, one of `choices` where there are any.

        Raises:
            InputError: When the field is absent without a default, or something else.
        """
        wanted = f"one of {', '.join(choices)}" if choices else "a text"
        there, value = self.take(name, default, wanted)
        if there and (not isinstance(value, str) or (choices and value not in choices)):
            raise self.refuse(name, wanted)
        return value

    def number(
        self, name: str, default: Default = REQUIRED, *, least: float = -math.inf, most: float = math.inf
    ) -> float | Default:
        """Return a finite number between `least` and `most`, both included.

        Raises:
            InputError: When the field is absent without a default, or something else.
        """
        wanted = "a number" + describe_range(least, most)
        there, value = self.take(name, default, wanted)
        if not there:
            return value
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.refuse(name, wanted)
        # An integer may be too large for a float.
        if isinstance(value, int) and abs(value) > 1 << 1000:
            raise self.refuse(name, wanted)
        if not math.isfinite(value) or not least <= value <= most:
            raise self.refuse(name, wanted)
        return float(value)

    def integer(
        self, name: str, default: Default = REQUIRED, *, least: float = -math.inf, most: float = 1 << 62
    ) -> int | Default:
        """Return a whole number between `least` and `most`, both included; 8.0 is one, 8.5 and true are not.

        Raises:
            InputError: When the field is absent without a default, or something else.
        """
        wanted = "a whole number" + describe_range(least, most if most < 1 << 62 else math.inf)
        there, value = self.take(name, default, wanted)
        if not there:
            return value
        whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        if isinstance(value, bool) or not whole or not least <= value <= most:
            raise self.refuse(name, wanted)
        return int(value)

    def flag(self, name: str, default: Default = REQUIRED) -> bool | Default:
        """Return true or false.

        Raises:
            InputError: When the field is absent without a default, or something else.
        """
        there, value = self.take(name, default, "true or false")
        if there and not isinstance(value, bool):
            raise self.refuse(name, "true or false")
        return value

    def texts(self, name: str, default: Default = REQUIRED) -> list[str] | Default:
        """Return a list of texts.

        Raises:
            InputError: When the field is absent without a default, or something else.
        """
        there, value = self.take(name, default, "a list of texts")
        if there and not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
            raise self.refuse(name, "a list of texts")
        return value

    def items(self, name: str, default: Default = REQUIRED) -> list[Any] | Default:
        """Return a list of anything.

        Raises:
            InputError: When the field is absent without a default, or something else.
        """
        there, value = self.take(name, default, "a list")
        if there and not isinstance(value, list):
            raise self.refuse(name, "a list")
        return value

    def mapping(self, name: str, default: Default = REQUIRED) -> dict[str, Any] | Default:
        """Return an object as it stands.

        Raises:
            InputError: When the field is absent without a default, or something else.
        """
        there, value = self.take(name, default, "an object")
        if there and not isinstance(value, Mapping):
            raise self.refuse(name, "an object")
        return dict(value) if there else value

    def inner(self, name: str) -> Fields:
        """Return the reader of a required object inside this one.

        Raises:
            InputError: When the field is absent or no object.
        """
        return Fields(self.mapping(name), f"{self.where}, '{name}'", self.remedy)

    def refuse_unknown(self, known: Collection[str]) -> None:
        """Refuse fields that nobody reads.

        Raises:
            InputError: Naming the first one, and those that are known.
        """
        unknown = sorted(str(name) for name in self.values if name not in known)
        if unknown:
            raise InputError(f"{self.where}: '{unknown[0]}' is unknown; known are {', '.join(sorted(known))}")


def describe_value(value: Any) -> str:
    """Return a wrong value as a message shows it: short, and without walking through a large one.

    Example:
        >>> describe_value("x" * 100), describe_value([1, 2]), describe_value(None)
        ("'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…'", 'a list', 'null')
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return repr(value if len(value) <= SHOWN else value[:SHOWN] + "…")
    if isinstance(value, int):
        # Beyond some thousand digits Python refuses to print an integer.
        return str(value) if abs(value) < 10**20 else "a number of more than twenty digits"
    if isinstance(value, float):
        return str(value)
    if isinstance(value, Mapping):
        return "an object"
    return "a list" if isinstance(value, (list, tuple)) else f"of type {type(value).__name__}"


def describe_range(least: float, most: float) -> str:
    """Return bounds in words, with a blank before them; empty without any.

    Example:
        >>> describe_range(0, 1), describe_range(1, math.inf)
        (' from 0 to 1', ' of at least 1')
    """
    if math.isinf(least) and math.isinf(most):
        return ""
    if math.isinf(most):
        return f" of at least {least:g}"
    return f" of at most {most:g}" if math.isinf(least) else f" from {least:g} to {most:g}"
