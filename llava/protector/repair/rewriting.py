"""What a detoxifier returned, read by whoever wrote it: rewrites that may be shown, and why others may not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from llava.data.schema import Action, GuardFailure, GuardResult
from llava.protector.outcomes import DETOXIFIER, has_words, refuse


def read_rewrites(rewrites: Any, count: int) -> Sequence[Any]:
    """Return what a detoxifier gave, when there is one rewrite for each response.

    Args:
        rewrites: What it returned.
        count: How many there must be.

    Raises:
        TypeError: When it is no list.
        ValueError: When it is one of another length.
    """
    if isinstance(rewrites, str | bytes) or not isinstance(rewrites, Sequence):
        raise TypeError(f"{type(rewrites).__name__} instead of a list of {count} rewrites")
    if len(rewrites) != count:
        raise ValueError(f"{len(rewrites)} rewrites for {count} responses")
    return rewrites


def judge_rewrite(rewrite: Any, score: float, threshold: float, failed: GuardFailure | None) -> GuardResult:
    """Return a rewrite as a result when it may be shown, else the refusal that says why not.

    Args:
        rewrite: What the detoxifier gave.
        score: Its harm score; NaN where there is none.
        threshold: Harm score from which it may not be shown.
        failed: What the detector failed with, where it did.

    Example:
        >>> judge_rewrite("Please be kind.", 0.1, 0.5, None).action.value
        'rewritten'
        >>> judge_rewrite("Please be kind.", 0.9, 0.5, None).reason
        'rewrite turned down: still flagged'
    """
    if score < threshold:  # False for NaN
        return GuardResult(rewrite, "", None, True, Action.REWRITTEN)
    if not isinstance(rewrite, str):
        wrong = GuardFailure(DETOXIFIER, "TypeError", f"{type(rewrite).__name__} instead of a text")
        return refuse(f"{DETOXIFIER} failed: {wrong.error}", wrong)
    if not has_words(rewrite):
        return refuse("rewrite turned down: empty")
    if failed:
        return refuse(f"rewrite turned down: {failed.part} failed: {failed.error}", failed)
    return refuse(f"rewrite turned down: {'no finite harm score' if math.isnan(score) else 'still flagged'}")
