"""What the command line does before a command runs: option files, and lists written with blanks or commas."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from llava.bounds import check_bounds
from llava.errors import InputError
from llava.options import find_cut_path, read_options, split_items, to_word, unquote

LIST_FLAGS = ("--image-types", "--scenarios", "--judge", "--evasions")
SPEC_SEPARATORS = ", \n"


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
    for name, value in values.items():
        parameter: Any = parameters[name]
        place = f"--config {path}: '{name}'"
        is_switch, several = getattr(parameter, "is_flag", False), getattr(parameter, "multiple", False)
        if isinstance(value, list) and not several:
            raise InputError(f"{place} is a list; give one value")
        items = [to_word(item, place, is_switch=is_switch) for item in (value if isinstance(value, list) else [value])]
        values[name] = items if several and value is not None else items[0]
    # What is null keeps its built-in default.
    given = {name: value for name, value in values.items() if value is not None}
    context.default_map = {**(context.default_map or {}), **given}
    return path


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

    Raises:
        InputError: When it would be cut inside a path that is there; the message shows how to quote it.

    Example:
        >>> split_specs(["keyword,detector:any(embedded, guard:x)", "'detector:/a, b'"])
        ('keyword', 'detector:any(embedded, guard:x)', 'detector:/a, b')
    """
    if values is None:
        return None
    for value in values:
        if (item := find_cut_path(value, SPEC_SEPARATORS)) is not None:
            raise InputError(f"--judge is cut at the commas and blanks of {item}; write \"'{item}'\", with both quotes")
    return tuple(unquote(item) for value in values for item in split_items(value, SPEC_SEPARATORS))


def parse_prices(text: str | None) -> tuple[float, float] | None:
    """Read `--prices IN,OUT`.

    Raises:
        InputError: When it is not two numbers of at least 0.
    """
    if text is None:
        return None
    try:
        price_in, price_out = map(float, text.split(","))
    except ValueError:
        raise InputError(f"--prices {text} is not two numbers; write e.g. 2.50,10") from None
    return check_bounds("prices", price_in), check_bounds("prices", price_out)


def parse_batch_size(text: str) -> int | str:
    """Return a batch size as a number; `auto`, and what is no number, stay as they are.

    Example:
        >>> parse_batch_size("8"), parse_batch_size("auto"), parse_batch_size("²")
        (8, 'auto', '²')
    """
    try:
        return int(text)
    except ValueError:
        return text
