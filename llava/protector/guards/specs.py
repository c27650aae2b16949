"""How a guard is named: `embedded`, a path, a guard model by its form, or several of them together."""

from __future__ import annotations

from dataclasses import dataclass

from llava.errors import InputError
from llava.model.answering.addresses import parse_address
from llava.options import find_cut_path, split_items, unquote
from llava.protector.guards.composite import COMBINATIONS
from llava.protector.guards.forms import FORMS

GUARD = "guard:"


@dataclass(frozen=True)
class GuardSpec:
    """A guard's specification, taken apart."""

    text: str
    """As the user wrote it."""
    kind: str
    """`detector` (one of ours), `guard` (a guard model), `remote` (on another machine), or how several are combined:
    `any`, `all` or `mean`."""
    path: str = ""
    """Folder, hub id, `embedded`, or an address; empty for several."""
    form: str | None = None
    """Family of a guard model; None lets its chat template tell."""
    members: tuple[GuardSpec, ...] = ()
    """Those that are combined."""


MOST_LEVELS = 4
"""Levels of combinations inside one another; more say nothing that fewer do not."""


def parse_spec(text: str, levels: int = MOST_LEVELS) -> GuardSpec:
    """Take a guard's specification apart.

    `any(…)`, `all(…)` and `mean(…)` hold specifications, separated by commas or semicolons, and nested. An item
    in quotes is taken as it stands, for a path that holds a comma or a bracket.

    Args:
        text: `embedded`, a folder or a hub id of a detector; `guard:PATH` or `guard:FORM@PATH`; the address of a guard
            on another machine; `any(SPEC, SPEC)`, `all(SPEC, SPEC)` or `mean(SPEC, SPEC)`.
        levels: How many levels of combinations there may be.

    Raises:
        InputError: When it is empty, no whole address, nested too deeply, or its brackets do not match.

    Example:
        >>> spec = parse_spec("any(embedded, guard:wild_guard@models/wg, 'guard:/data/a,b')")
        >>> spec.kind, [(member.kind, member.form, member.path) for member in spec.members]
        ('any', [('detector', None, 'embedded'), ('guard', 'wild_guard', 'models/wg'), ('guard', None, '/data/a,b')])
    """
    text = text.strip()
    kind, bracket, rest = text.partition("(")
    if bracket and kind in COMBINATIONS:
        if not rest.endswith(")"):
            raise InputError(f"detector {text} lacks its closing bracket; write {kind}(SPEC, SPEC)")
        if levels == 0:
            raise InputError(f"detector {text} is nested deeper than {MOST_LEVELS} levels; combine fewer guards")
        if (item := find_cut_path(rest[:-1], ",;")) is not None:
            raise InputError(f"detector {text} is cut inside {item}; write '{item}' there, in quotes")
        items = split_items(rest[:-1], ",;")
        if not items:
            raise InputError(f"detector {text} names no guard; write {kind}(SPEC, SPEC)")
        members = tuple(
            _parse_one(unquote(item)) if unquote(item) != item else parse_spec(item, levels - 1) for item in items
        )
        return GuardSpec(text, kind, members=members)
    return _parse_one(text)


def _parse_one(text: str) -> GuardSpec:
    """Take the specification of a single guard apart."""
    if text.startswith(("http://", "https://")):
        # What is shown and stored has no password and no key.
        return GuardSpec(str(parse_address(text)), "remote", text)
    if text.startswith(GUARD):
        head, at, rest = text.removeprefix(GUARD).partition("@")
        # A path may hold an @ of its own.
        form, path = (head, rest) if at and head in FORMS else (None, text.removeprefix(GUARD))
        if not path:
            raise InputError(f"detector {text} names no model; write guard:PATH or guard:FORM@PATH")
        return GuardSpec(text, "guard", path, form)
    if not text:
        raise InputError("detector is empty; give 'embedded', a folder or a hub id")
    return GuardSpec(text, "detector", text)
