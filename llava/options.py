"""Options as people write them: YAML files of options, and lists whose items may hold brackets and quotes."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava.errors import InputError
from llava.fields import describe_value
from llava.files import read_text
from llava.places import path_exists

if TYPE_CHECKING:
    import yaml

MOST_BYTES = 1 << 20
"""A file of options is a page or two."""
MOST_DIGITS = 400
"""Digits of a number; beyond some thousand Python refuses to read or print one."""
MOST_LEVELS = 8
"""Levels of an option that may hold a mapping of its own."""
QUOTES = "'\""
BRACKETED = re.compile(r"(?<![\w./-])(?:any|all|mean)\(")
"""What opens a bracket that keeps a list together; other brackets are letters like any other."""
NAMED = re.compile(r"^(?:\w+:)*(?:\w+@)?")
"""What stands before the path in the specification of a judge or a guard."""


def read_options(path: str | Path, nested: Collection[str] = ()) -> dict[str, Any]:
    """Read a YAML file of options: names with `-` or `_`, each with a value or a list of values.

    The file is looked at before anything in it is built, so that neither deep nesting nor aliases that stand for one
    another a billion times get that far.

    Args:
        path: The file.
        nested: Options that may hold a mapping, or lists in lists.

    Returns:
        Names, with underscores, and their values: None, bool, int, float, str, or lists of those.

    Raises:
        InputError: When the file is missing, too large or not YAML, has an option twice, or a value is of another kind.
    """
    import yaml

    where = f"--config {path}"
    try:
        text = read_text(path, "--config")
    except InputError as error:
        reason = str(error).removeprefix(f"{where} ")
        raise InputError(f"{where} cannot be read: it {reason}") from None
    if len(text) > MOST_BYTES:
        raise InputError(f"{where} has more than {MOST_BYTES:,} characters; a file of options is a page or two")
    try:
        _check_events(yaml.parse(text, yaml.SafeLoader), where)
        node = yaml.compose(text, yaml.SafeLoader)
        if not isinstance(node, yaml.MappingNode):
            raise InputError(f"{where} is not a mapping; write 'option: value' lines")
        values: dict[str, Any] = {}
        for key, value in node.value:
            name = str(key.value).replace("-", "_") if isinstance(key, yaml.ScalarNode) else ""
            place = f"{where} line {key.start_mark.line + 1}"
            if not name or name in values:
                raise InputError(f"{place}: " + (f"'{name}' stands there twice" if name else "a name is no text"))
            values[name] = _build_value(value, f"{place}: '{name}'", MOST_LEVELS if name in nested else 1)
    except yaml.YAMLError as error:
        raise InputError(f"{where} is not valid YAML ({' '.join(str(error).split())[:200]}); mend it") from None
    return values


def _check_events(events: Iterator[Any], where: str) -> None:
    """Refuse a file that would grow when it is read, or is nested deeper than any option."""
    import yaml

    depth = 0
    for event in events:
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.AliasEvent):
            raise InputError(f"{where} line {line} has an alias (*{event.anchor}); write the value itself")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MOST_LEVELS + 1:
                raise InputError(f"{where} line {line} is nested too deeply; write plain values")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _build_value(node: yaml.Node, where: str, levels: int) -> Any:
    """Return the value of a node.

    Args:
        node: A scalar, or a collection of at most `levels` levels; with one level only a list of scalars.
        where: File, line and option, for messages.
        levels: Levels of collections that are still allowed.
    """
    import yaml

    if isinstance(node, yaml.ScalarNode):
        return _build_scalar(node, where)
    if isinstance(node, yaml.SequenceNode) and levels > 0:
        return [_build_value(item, where, levels - 1) for item in node.value]
    if isinstance(node, yaml.MappingNode) and levels > 1:
        return {str(_build_value(key, where, 0)): _build_value(value, where, levels - 1) for key, value in node.value}
    kind = "mapping" if isinstance(node, yaml.MappingNode) else "list"
    raise InputError(f"{where} holds a {kind}; give a value, or a list of values")


def _build_scalar(node: yaml.ScalarNode, where: str) -> Any:
    """Return a scalar as YAML reads it; refuse what no option can be."""
    import yaml

    if node.tag.endswith(":int") and len(node.value) > MOST_DIGITS:
        raise InputError(f"{where} is a number of {len(node.value):,} digits; write it shorter")
    try:
        value: Any = yaml.SafeLoader("").construct_object(node)
    except (ValueError, OverflowError) as error:
        raise InputError(f"{where} cannot be read ({str(error)[:100]}); mend it") from None
    if value is not None and not isinstance(value, bool | int | float | str):
        raise InputError(f"{where} is {describe_value(value)}; write a text in quotes, a number, true or false")
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{where} is {value}; give a finite number")
    return value


def to_word(value: Any, where: str, *, is_switch: bool) -> str | bool | None:
    """Return a scalar of an option file as the word that stands for it on a command line, where it is then checked.

    Args:
        value: As `read_options` returns it; None stays None.
        where: File and option, for messages.
        is_switch: Whether the option is a switch, which stays true or false.

    Raises:
        InputError: When a switch is no true or false, or another option is.

    Example:
        >>> to_word(0.5, "x", is_switch=False), to_word(True, "x", is_switch=True)
        ('0.5', True)
    """
    if value is None or (is_switch and isinstance(value, bool)):
        return value
    if is_switch:
        raise InputError(f"{where} is {describe_value(value)}; give true or false")
    if isinstance(value, bool):
        raise InputError(f"{where} is {describe_value(value)}; give a number, or a text in quotes")
    return str(value)


def split_items(text: str, separators: str = ",") -> list[str]:
    """Split a list at its separators, but not inside quotes or inside the brackets of `any(…)`, `all(…)`, `mean(…)`.

    Args:
        text: The list.
        separators: Characters that separate items.

    Returns:
        The items without surrounding blanks, those in quotes with them; empty ones are left out.

    Example:
        >>> split_items("keyword, detector:any(embedded, guard:x), 'guard:/a, b'")
        ['keyword', 'detector:any(embedded, guard:x)', "'guard:/a, b'"]
        >>> split_items("/models/one (1,/models/it's")
        ['/models/one (1', "/models/it's"]
    """
    items: list[str] = []
    start = place = depth = 0
    while place < len(text):
        letter = text[place]
        # A quote in the middle of a word is a letter like any other.
        if letter in QUOTES and (not text[start:place].strip() or text[:place].rstrip().endswith(("(", *separators))):
            place = max(place, text.find(letter, place + 1)) + 1
            continue
        if opened := BRACKETED.match(text, place):
            depth += 1
            place = opened.end()
            continue
        if depth > 0:
            depth += (letter == "(") - (letter == ")")
        elif letter in separators:
            items.append(text[start:place])
            start = place + 1
        place += 1
    items.append(text[start:])
    return [item.strip() for item in items if item.strip()]


def find_cut_path(text: str, separators: str = ",") -> str | None:
    """Return the item of a list without quotes whose path is there, but which the list is cut inside; None for none.

    Args:
        text: The list; what stands before a path (`detector:`, `guard:FORM@`) is passed over.
        separators: As of `split_items`.
    """
    if any(quote in text for quote in QUOTES):
        return None
    ends = [found.start() for found in re.finditer(f"[{re.escape(separators)}]", text)] + [len(text)]
    for start in [0, *(end + 1 for end in ends[:-1])]:
        first, *longer = (text[start:end].strip() for end in ends if end >= start)
        if first and not path_exists(NAMED.sub("", first)):
            for item in reversed(longer):
                if item != first and path_exists(NAMED.sub("", item)):
                    return item
    return None


def unquote(item: str) -> str:
    """Return an item without the quotes around it.

    Example:
        >>> unquote("'guard:/a, b'"), unquote("it's")
        ('guard:/a, b', "it's")
    """
    return item[1:-1] if len(item) > 1 and item[0] in QUOTES and item[-1] == item[0] else item
