"""Where in a response the harm is: a score for each of its tokens, as records hold it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from llava.fields import Fields


class TokenScore(NamedTuple):
    """How harmful a response is around one of its tokens."""

    start: int
    """Where the token begins in the response, in characters."""
    end: int
    """Where it ends."""
    score: float
    """Harm score in [0, 1], 1 = harmful; NaN when the network gives no finite number."""


def write_token_scores(scores: Sequence[TokenScore]) -> list[list[float | None]]:
    """Return token scores as JSON has them; None for a score that is no number.

    Example:
        >>> write_token_scores([TokenScore(0, 4, 0.98765), TokenScore(4, 6, float("nan"))])
        [[0, 4, 0.988], [4, 6, None]]
    """
    return [[start, end, round(score, 3) if math.isfinite(score) else None] for start, end, score in scores]


def read_token_scores(items: list[Any] | None, where: str, remedy: str) -> tuple[TokenScore, ...] | None:
    """Return token scores from their JSON form.

    Raises:
        InputError: When one is not `[start, end, score]`.
    """
    if items is None:
        return None
    scores = []
    for item in items:
        values = item if isinstance(item, list) and len(item) == 3 else [None] * 3
        fields = Fields(dict(zip(TokenScore._fields, values, strict=True)), f"{where}, 'token_scores'", remedy)
        score = fields.number("score", None, least=0, most=1)
        scores.append(
            TokenScore(
                fields.integer("start", least=0), fields.integer("end", least=0), math.nan if score is None else score
            )
        )
    return tuple(scores)
