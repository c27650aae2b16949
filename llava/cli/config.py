"""What the command line does before a command runs: option files, and lists written with blanks or commas."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from llava.errors import InputError
from llava.fields import describe_value
from llava.options import read_options, split_items, unquote

LIST_FLAGS = ("--image-types", "--scenarios", "--judge")


def read_config(context: typer.Context, path: Path | None) -> Path | None:
    """Make the options in a YAML file the command's defaults: built-in < file < flags.

    Raises:
        InputError: When the file is missing, no YAML mapping, or has a key that the command does not know.
    """
    if path is None:
        return None
    values = read_options(path)
    parameters = {parameter.name: parameter for parameter in context.command.params if parameter.name}
    unknown = sorted(set(values) - set(parameters))
    if unknown:
        raise InputError(f"--config {path}: unknown option {unknown[0]}; known are {', '.join(sorted(parameters))}")
    plain = {name: to_flag_value(parameters[name], value, f"--config {path}") for name, value in values.items()}
    context.default_map = {
        **(context.default_map or {}),
        **{name: value for name, value in plain.items() if value is not None},
    }
    return path


def to_flag_value(parameter: Any, value: Any, where: str) -> Any:
    """Return a YAML value in the form that its flag would have on the command line, where it is then checked.

    Args:
        parameter: The option, as click knows it.
        value: None, which stands for the built-in default, a scalar, or a list of scalars.
        where: The file, for messages.

    Raises:
        InputError: When a switch is no true or false, another option is, or a list is given where one value belongs.
    """
    if value is None:
        return None
    if getattr(parameter, "is_flag", False):
        if not isinstance(value, bool):
            raise InputError(f"{where}: '{parameter.name}' is {describe_value(value)}; give true or false")
        return value
    several = bool(getattr(parameter, "multiple", False)) or parameter.nargs != 1
    items = value if isinstance(value, list) else [value]
    if isinstance(value, list) and not several:
        raise InputError(f"{where}: '{parameter.name}' is a list; give one value")
    for item in items:
        if item is None or isinstance(item, bool | list | dict):
            raise InputError(
                f"{where}: '{parameter.name}' is {describe_value(item)}; give a number, or a text in quotes"
            )
    return [str(item) for item in items] if several else str(value)


def join_lists(arguments: list[str]) -> list[str]:
    """Turn `--image-types TEXT SD` into `--image-types TEXT,SD`, so that both spellings work.

    Example:
        >>> join_lists(["generate", "--image-types", "TEXT", "SD", "--limit", "4"])
        ['generate', '--image-types', 'TEXT,SD', '--limit', '4']
    """
    joined: list[str] = []
    i = 0
    while i < len(arguments):
        joined.append(arguments[i])
        i += 1
        if joined[-1] in LIST_FLAGS:
            items = []
            while i < len(arguments) and not arguments[i].startswith("-"):
                items.append(arguments[i])
                i += 1
            if items:
                joined.append(",".join(items))
    return joined


def split_list(values: list[str] | None, *, at_blanks: bool = True) -> tuple[str, ...] | None:
    """Split what `join_lists` and repeated flags bring; None stays None.

    Args:
        values: What was given for the flag.
        at_blanks: Whether a blank separates too, for names that never hold one.

    Example:
        >>> split_list(["TEXT,SD TYPO"]), split_list(["Hate speech, Fraud"], at_blanks=False)
        (('TEXT', 'SD', 'TYPO'), ('Hate speech', 'Fraud'))
    """
    if values is None:
        return None
    parts = [part for value in values for part in value.split(",")]
    if at_blanks:
        parts = [word for part in parts for word in part.split()]
    return tuple(part.strip() for part in parts if part.strip())


def split_specs(values: list[str] | None) -> tuple[str, ...] | None:
    """Split a list of specifications at blanks and commas, but not inside quotes or brackets; None stays None.

    Example:
        >>> split_specs(["keyword,detector:any(embedded, guard:x)", "'detector:/a, b'"])
        ('keyword', 'detector:any(embedded, guard:x)', 'detector:/a, b')
    """
    if values is None:
        return None
    return tuple(unquote(item) for value in values for item in split_items(value, ", \n"))


def parse_prices(text: str | None) -> tuple[float, float] | None:
    """Read `--prices IN,OUT`.

    Raises:
        InputError: When it is not two numbers.
    """
    if text is None:
        return None
    try:
        price_in, price_out = map(float, text.split(","))
    except ValueError:
        raise InputError(f"--prices {text} is not two numbers; write e.g. 2.50,10") from None
    return price_in, price_out
