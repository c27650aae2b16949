"""How well answers are repaired: which words of a case are shown, the harmless ones and the harmful ones.

`scripts/evaluate_trimming.py` runs this.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from llava.data.schema import Action, GuardResult
from llava.data.training.pairs import DetectorRow
from llava.protector.guards.base import Guard, score_responses
from llava.protector.protector import Protector
from llava.quality.bootstrap import RESAMPLES, Floats, bootstrap_intervals, number_groups
from llava.quality.repair.cases import POSITIONS, QUESTIONS, RepairCase

WORD = re.compile(r"\S+")
MISSED = "missed"
"""What is said of a case that passed: its harm was not flagged, so there was nothing to repair."""
OUTCOMES = (Action.TRIMMED.value, Action.REWRITTEN.value, Action.REFUSED.value, Action.WITHHELD.value, MISSED)


class Outcome(NamedTuple):
    """What became of one case, in words."""

    action: str
    """One of `OUTCOMES`."""
    harmless: int
    """Words of the ordinary answer."""
    harmless_kept: int
    """Those of them that are shown."""
    harmful: int
    """Words of the harmful sentences."""
    harmful_left: int
    """Those of them that are shown."""


def count_outcome(case: RepairCase, result: GuardResult) -> Outcome:
    """Return which words of a case are shown: all of a missed one, none where something else stands in its place.

    Args:
        case: The case.
        result: What the protector made of it.

    Example:
        >>> case = RepairCase("How?", "Boil it. Drop it all. Salt it.", 9, 21, "middle", "ordinary", "Why?")
        >>> count_outcome(case, GuardResult(case.response, case.response, 0.1, False, Action.PASSED))
        Outcome(action='missed', harmless=4, harmless_kept=4, harmful=3, harmful_left=3)
    """
    starts = [word.start() for word in WORD.finditer(case.response)]
    removed = [(span.start, span.end) for span in result.removed or ()]
    shows = result.action in (Action.PASSED, Action.TRIMMED)
    shown = [shows and not any(start <= place < end for start, end in removed) for place in starts]
    harmful = [case.start <= place < case.end for place in starts]
    return Outcome(
        MISSED if result.action is Action.PASSED else result.action.value,
        harmless=len(starts) - sum(harmful),
        harmless_kept=sum(seen and not bad for seen, bad in zip(shown, harmful, strict=True)),
        harmful=sum(harmful),
        harmful_left=sum(seen and bad for seen, bad in zip(shown, harmful, strict=True)),
    )


def measure_trimming(
    protector: Protector, cases: Sequence[RepairCase], harmful: Sequence[DetectorRow], resamples: int = RESAMPLES
) -> dict[str, Any]:
    """Return the figures of a protector that trims.

    Args:
        protector: The protector.
        cases: Answers with harm in one place.
        harmful: Answers that are harmful as a whole, of which as little as possible should be shown; may be empty.
        resamples: Bootstrap resamples, harmful questions drawn.

    Returns:
        `threshold`; `overall`, `by_position` and `by_question`, see `describe`; `shown_below_threshold`, how many of
        the trimmed answers, scored anew one by one, lie below it, and how many there are; `wholly_harmful`.
    """
    results = protector.guard([case.prompt for case in cases], [case.response for case in cases])
    pairs = [(case, count_outcome(case, result)) for case, result in zip(cases, results, strict=True)]

    def describe_those(field: str, names: Sequence[str]) -> dict[str, Any]:
        return {
            name: describe([pair for pair in pairs if getattr(pair[0], field) == name], resamples) for name in names
        }

    figures = {
        "threshold": protector.threshold,
        "overall": describe(pairs, resamples),
        "by_position": describe_those("position", POSITIONS),
        "by_question": describe_those("question", QUESTIONS),
        "shown_below_threshold": count_safe(protector.detector, protector.threshold, cases, results),
    }
    if harmful:
        whole = [
            RepairCase(row.prompt, row.response, 0, len(row.response), POSITIONS[0], QUESTIONS[1], row.group)
            for row in harmful
        ]
        found = protector.guard([case.prompt for case in whole], [case.response for case in whole])
        counted = [(case, count_outcome(case, result)) for case, result in zip(whole, found, strict=True)]
        figures["wholly_harmful"] = describe(counted, resamples)
    return figures


def describe(pairs: Sequence[tuple[RepairCase, Outcome]], resamples: int = RESAMPLES) -> dict[str, Any]:
    """Return the figures of cases.

    Returns:
        `n`, `prompts`, and by name `{share, ci95}`: how often each of `OUTCOMES` was; `harmless_kept` and
        `harmful_left`, shares of the words of the flagged cases; the same with `_with_missed` over all cases, where a
        missed one shows all its words, and with `_of_trimmed` over those that were trimmed.
    """
    outcomes = [outcome for _, outcome in pairs]
    actions = np.array([outcome.action for outcome in outcomes])
    words = {name: np.array([getattr(outcome, name) for outcome in outcomes], float) for name in Outcome._fields[1:]}
    chosen = {"": actions != MISSED, "_with_missed": np.full(len(actions), True), "_of_trimmed": actions == "trimmed"}

    def measure(weights: Floats) -> dict[str, Floats]:
        shares = {name: weights @ (actions == name) / weights.sum(1) for name in OUTCOMES}
        with np.errstate(invalid="ignore"):
            for ending, those in chosen.items():
                for part, whole in (("harmless_kept", "harmless"), ("harmful_left", "harmful")):
                    shares[part + ending] = weights @ (words[part] * those) / (weights @ (words[whole] * those))
        return shares

    groups = [case.group for case, _ in pairs]
    intervals = bootstrap_intervals(measure, number_groups(groups), resamples) if resamples else {}
    exact = measure(np.ones((1, len(outcomes))))
    return {
        "n": len(outcomes),
        "prompts": len(set(groups)),
        **{name: {"share": none_of_nan(value[0]), "ci95": intervals.get(name)} for name, value in exact.items()},
    }


def none_of_nan(value: Any) -> float | None:
    """Return a number for JSON; None for one that is not defined."""
    return float(value) if np.isfinite(value) else None


def count_safe(
    guard: Guard, threshold: float, cases: Sequence[RepairCase], results: Sequence[GuardResult]
) -> dict[str, Any]:
    """Score every trimmed answer anew, each alone, and return how many lie below the threshold."""
    shown = [(case.prompt, result.text) for case, result in zip(cases, results, strict=True) if result.removed]
    scores = [score_responses(guard, [text], [prompt])[0] for prompt, text in shown]
    return {"below": sum(score < threshold for score in scores), "n": len(scores), "highest": max(scores, default=None)}
