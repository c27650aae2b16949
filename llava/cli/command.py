"""What holds for every command: each value is checked before the command runs, in one way."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from typer.core import TyperCommand

from llava.bounds import BOUNDS, check_bounds, flag
from llava.cli.config import parse_batch_size
from llava.errors import InputError
from llava.fields import describe_value

MAY_BE_EMPTY = ("detector", "detoxifier")
"""Options for which nothing between quotes means none: scripts pass on what they were not given."""
OWN_FORM = ("prices",)
"""Options that are no plain number; their command reads them."""


class CheckedCommand(TyperCommand):
    """A command whose numbers are within their bounds and whose texts are neither empty nor unprintable in a file."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the command line and the file of `--config`, and check each value.

        Raises:
            InputError: Naming the option and what it takes.
        """
        for place, word in enumerate(args):
            name, equals, value = word.partition("=") if word.startswith("--") else (args[place - 1], "=", word)
            if equals and not value.strip():
                self.refuse_empty(name if place or name != word else "")
        rest = super().parse_args(ctx, args)
        for name, value in (ctx.default_map or {}).items():
            if isinstance(value, str) and not value.strip():
                self.refuse_empty(flag(name))
        for name, value in ctx.params.items():
            for item in value if isinstance(value, (list, tuple)) else [value]:
                check_characters(flag(name), item)
            if value is not None and name in BOUNDS and name not in OWN_FORM:
                check_bounds(name, parse_batch_size(value) if isinstance(value, str) else value)
        for word in ctx.args:
            check_characters("argument", word)
        return rest

    def refuse_empty(self, name: str) -> None:
        """Raise for an empty value: as a path it would be the current folder."""
        if name.removeprefix("--") not in MAY_BE_EMPTY:
            raise InputError(
                f"{name if name.startswith('--') else 'an argument'} is empty; give a value or leave it out"
            )


def check_characters(name: str, value: Any) -> None:
    """Refuse a text or path with a null character, or with bytes that are no UTF-8: no record could hold it.

    Raises:
        InputError: Naming the option.
    """
    if not isinstance(value, (str, Path)):
        return
    text = str(value)
    if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise InputError(f"{name} {describe_value(text)} holds a null character or is not UTF-8; write it otherwise")


def check_extra(name: str, *packages: str) -> None:
    """Refuse where a package is not installed that a command needs.

    Args:
        name: The command, and the extra of this package that brings what it needs.
        packages: What it needs.

    Raises:
        InputError: Naming the package, and the command that mends it.
    """
    for package in packages:
        if find_spec(package) is None:
            raise InputError(f"{name} needs {package}, which is not installed; pip install 'mllm-protector[{name}]'")
