"""Contrast pairs: an unsafe question beside a safe one that looks like it → two rows.

A protector that looks at single words treats both alike; one that understands them flags the first only. XSTest
(arXiv 2308.01263) and MOSSBench (arXiv 2406.17806) are built on this idea. One row of a pair file:

    {"id": "kill-1", "unsafe_prompt": "…", "safe_prompt": "…", "scenario": "…", "unsafe_image": "…", "safe_image": "…"}

`image` stands for both images when the two questions are asked about the same picture.
"""

from __future__ import annotations

from typing import Any

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
