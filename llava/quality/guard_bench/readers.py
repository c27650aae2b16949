"""Labelled responses from files of any known form, each row counted."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llava.data.rows.columns import UnreadColumns
from llava.data.rows.reading import iter_rows
from llava.data.rows.streams import Where, plain_name, read_head
from llava.data.training.sources import shorten_name
from llava.errors import InputError
from llava.files import read_json
from llava.quality.guard_bench.forms import Form, find_form

WHAT = "input file"
TABLE_KEY = "key"
"""Where the name is kept under which an object of lists has a row."""


@dataclass(frozen=True)
class Answer:
    """One labelled response."""

    prompt: str
    """The question; may be empty."""
    response: str
    """What is scored; never empty."""
    harmful: bool
    """The label."""
    group: str
    """Rows of one group are not independent: answers to one question."""


@dataclass
class Source:
    """The labelled responses of one file, or of one source within it."""

    name: str
    """How tables call it."""
    form: str
    """The form it came in."""
    benchmark: str = ""
    """How tables of published figures call it; empty for none of theirs."""
    answers: list[Answer] = field(default_factory=list)
    unlabelled: int = 0
    """Responses without a label, or with an unclear one: left out."""
    empty: int = 0
    """Rows without a response: left out."""


@dataclass(frozen=True)
class Reading:
    """What was read of all files."""

    sources: list[Source]
    remarks: list[str]
    """What a reader of the figures must know: columns that are not read, rows that are left out."""


def read_sources(paths: Sequence[str | Path], limit: int | None = None, seed: int = 0) -> Reading:
    """Read files of labelled responses.

    Args:
        paths: JSON Lines, JSON, CSV or Parquet, in any form of `forms.py`. A file whose rows name several sources
            (`source`) gives one for each.
        limit: At most so many responses of each source, drawn by chance; None takes all.
        seed: Seed of the draw.

    Raises:
        InputError: When a file is missing, damaged, of no known form, or has no labelled response.
    """
    names = _name_files(paths)
    sources: list[Source] = []
    remarks: list[str] = []
    for path, name in zip(paths, names, strict=True):
        found, said = _read_file(Path(path), name)
        sources += found
        remarks += said
    for source in sources:
        if limit is not None and len(source.answers) > limit:
            kept = sorted(random.Random(f"{seed}:{source.name}").sample(range(len(source.answers)), limit))
            source.answers = [source.answers[place] for place in kept]
    return Reading(sources, remarks)


def _name_files(paths: Sequence[str | Path]) -> list[str]:
    """Return short names of files; those of one name get their folder's in front."""
    short = [shorten_name(Path(path).name) for path in paths]
    names = [
        name if short.count(name) == 1 else f"{Path(path).resolve().parent.name}/{name}"
        for path, name in zip(paths, short, strict=True)
    ]
    for place, name in enumerate(names):
        if name in names[:place]:
            raise InputError(f"--input {paths[place]} is given twice; leave one out")
    return names


def _read_file(path: Path, name: str) -> tuple[list[Source], list[str]]:
    """Return the sources of one file, and what is to be said about it."""
    found: dict[tuple[str, str], Source] = {}
    unread = UnreadColumns(f"{WHAT} {path}")
    forms: dict[str, Form] = {}
    for where, row in _iter_file(path):
        here = f"{WHAT} {where}"
        form = find_form(row, here)
        forms[form.name] = form
        unread.see(row, form.read(row))
        part = row.get("source")
        source = found.setdefault(
            (form.name, part if isinstance(part, str) else ""), Source(name, form.name, form.benchmark)
        )
        for labelled in form.parse(row, here):
            if not labelled.response.strip():
                source.empty += 1
            elif labelled.harmful is None:
                source.unlabelled += 1
            else:
                group = labelled.group or labelled.prompt.strip() or labelled.response
                source.answers.append(Answer(labelled.prompt, labelled.response, labelled.harmful, group))
    if not found:
        raise InputError(f"{WHAT} {path} has no rows; write one JSON object a line")
    if not any(source.answers for source in found.values()):
        raise InputError(f"{WHAT} {path} has no response with a clear label; nothing can be measured on it")
    if len(found) > 1:
        for (form_name, part), source in found.items():
            source.name = f"{name}/{part or form_name}"
    remarks = [said for said in (unread.warn(), unread.note()) if said]
    remarks += [f"{WHAT} {path} ({form.name}): {form.remark}" for form in forms.values() if form.remark]
    for count, words in (
        (sum(source.unlabelled for source in found.values()), "without a clear label"),
        (sum(source.empty for source in found.values()), "without a response"),
    ):
        if count:
            remarks.append(f"{WHAT} {path}: {count} {words}, left out")
    return [source for source in found.values() if source.answers], remarks


def _iter_file(path: Path) -> Iterator[tuple[Where, dict[str, Any]]]:
    """Yield the rows of a file; an object of lists, as HarmBench has, is one list."""
    if plain_name(path).endswith(".json") and path.suffix.lower() == ".json" and read_head(path, WHAT)[:1] != b"\x1f":
        value = read_json(path, WHAT)
        if isinstance(value, dict) and value and all(isinstance(rows, list) for rows in value.values()):
            number = 0
            for key, rows in value.items():
                for row in rows:
                    number += 1
                    if not isinstance(row, dict):
                        raise InputError(f"{WHAT} {path} row {number} is not an object; write a list of objects")
                    yield Where(str(path), number, "row"), {TABLE_KEY: key, **row}
            return
    yield from iter_rows(path, WHAT)
