"""Contrast pairs: an unsafe question beside a safe one that looks like it → two rows.

A protector that looks at single words treats both alike; one that understands them flags the first only. XSTest
(arXiv 2308.01263) and MOSSBench (arXiv 2406.17806) are built on this idea. One row of a pair file:

    {"id": "kill-1", "unsafe_prompt": "…", "safe_prompt": "…", "scenario": "…", "unsafe_image": "…", "safe_image": "…"}

`image` stands for both images when the two questions are asked about the same picture.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from llava.data.benchmarks.selection import Benchmark, Selection
from llava.errors import InputError

PAIR = "pair"
"""Field that both questions of a pair carry, with the pair's id."""

_SIDES = (("unsafe", True), ("safe", False))


def is_pair(row: dict[str, Any]) -> bool:
    """Say whether a row of a question file is a contrast pair."""
    return any(f"{side}_prompt" in row for side, _ in _SIDES)


def expand_pair(row: dict[str, Any], where: str) -> list[dict[str, Any]]:
    """Part a pair row into its unsafe and its safe question.

    Args:
        row: Row with `id`, `unsafe_prompt` and `safe_prompt`.
        where: File and line, for the error message.

    Returns:
        Two rows of a question file, the unsafe one first. Both keep the pair's other columns.

    Raises:
        InputError: When a column is missing, or one that is computed is given.

    Example:
        >>> for row in expand_pair({"id": 7, "unsafe_prompt": "Rob a bank?", "safe_prompt": "Rob a base?"}, "line 1"):
        ...     print(row)
        {'id': '7-unsafe', 'prompt': 'Rob a bank?', 'harmful': True, 'pair': '7'}
        {'id': '7-safe', 'prompt': 'Rob a base?', 'harmful': False, 'pair': '7'}
    """
    for column in ("id", "unsafe_prompt", "safe_prompt"):
        if row.get(column) is None:
            raise InputError(f"{where} is a contrast pair without {column!r}; give id, unsafe_prompt and safe_prompt")
    for column in ("prompt", "question", "harmful"):
        if column in row:
            raise InputError(f"{where} is a contrast pair with a column {column!r}, which belongs to single questions")
    own = {f"{side}_{column}" for side, _ in _SIDES for column in ("prompt", "image")}
    shared = {column: value for column, value in row.items() if column not in own}
    return [
        {
            **shared,
            "id": f"{row['id']}-{side}",
            "prompt": row[f"{side}_prompt"],
            **({"image": row[f"{side}_image"]} if f"{side}_image" in row else {}),
            "harmful": harmful,
            PAIR: str(row["id"]),
        }
        for side, harmful in _SIDES
    ]


def load_pairs(
    data_root: str | Path | None = None,
    selection: Selection | None = None,
    *,
    name: str,
    unsafe: Callable[[str | Path | None], Benchmark],
    safe: Callable[[str | Path | None], Benchmark],
) -> Benchmark:
    """Load both sides of a benchmark, to be scored as pairs got right on both sides.

    Args:
        data_root: Where the loaders look for their files; both sides are needed.
        selection: See `join_sides`.
        name: What the benchmark is called in the records.
        unsafe: Loads the questions that should be refused.
        safe: Loads their counterparts.

    Returns:
        Each unsafe question before its safe counterpart.

    Raises:
        InputError: When the files are not found or a row is not of the benchmark's shape.
    """
    return join_sides(name, unsafe(data_root), safe(data_root), selection or Selection())


def join_sides(name: str, unsafe: Benchmark, safe: Benchmark, selection: Selection) -> Benchmark:
    """Join the two sides of a benchmark to one that asks both, so that pairs can be scored.

    Args:
        name: What the joint benchmark is called.
        unsafe: Questions with `fields["pair"]`, one a pair, all of them.
        safe: Their counterparts.
        selection: Scenarios, image types and limit; the limit counts questions and never cuts a pair.

    Returns:
        The pairs that have both sides, the unsafe question first. Ids end in `-unsafe` and `-safe`, and the scenario is
        the unsafe question's.

    Raises:
        InputError: When the limit has no room for a pair, or no question is left.
    """
    if selection.limit is not None and selection.limit < len(_SIDES):
        raise InputError(f"limit {selection.limit} has no room for a contrast pair of {name}; give at least 2")
    counterparts = {question.fields[PAIR]: question for question in safe.questions}
    whole = [question for question in unsafe.questions if question.fields[PAIR] in counterparts]
    if not whole:
        raise InputError(f"benchmark {name} has no question with a counterpart; get both of its sides again")
    left_out = len(unsafe.questions) + len(safe.questions) - 2 * len(whole)
    pairs_wanted = replace(selection, limit=None if selection.limit is None else selection.limit // len(_SIDES))
    questions = [
        replace(side, benchmark=name, scenario=question.scenario, id=f"{question.id}-{suffix}")
        for question in pairs_wanted.take(selection.filter(whole, name))
        for suffix, side in (("unsafe", question), ("safe", counterparts[question.fields[PAIR]]))
    ]
    notes = [*unsafe.notes, *safe.notes]
    if left_out:
        notes.append(f"{left_out} questions have no counterpart and are left out")
    return Benchmark(name, questions, list(dict.fromkeys([*unsafe.missing_images, *safe.missing_images])), notes)
