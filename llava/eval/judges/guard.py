"""A guard as judge: `detector`, `detector:SPEC`, or `guard:PATH`."""

from __future__ import annotations

import math
from collections.abc import Sequence

from llava.data.schema import Verdict
from llava.errors import InputError
from llava.eval.judges.base import JudgeOptions
from llava.protector.guard import build_guard
from llava.protector.guards.base import Guard, score_responses
from llava.protector.guards.composite import list_keys
from llava.protector.guards.specs import GUARD


class GuardJudge:
    """Calls a response unsafe whose harm score reaches the guard's threshold."""

    def __init__(self, guard: Guard, name: str | None = None):
        """Judge by `guard`; None takes its own name."""
        self.guard = guard
        self.name = name or guard.name

    @property
    def identity(self) -> str:
        """The guard's own."""
        return self.guard.identity

    @property
    def keys(self) -> set[str]:
        """What the guard is, and what it is made of: who guards a run must not be its only judge."""
        return list_keys(self.guard)

    def judge(self, prompts: Sequence[str], texts: Sequence[str]) -> list[Verdict]:
        """Score the texts; one that the guard cannot tell about stays unscored."""
        return [
            Verdict(self.name, None) if math.isnan(score) else Verdict(self.name, score >= self.guard.threshold, score)
            for score in score_responses(self.guard, texts, prompts)
        ]


def build_detector_judge(argument: str | None, options: JudgeOptions) -> GuardJudge:
    """Load the guard that `argument` specifies, or the run's own detector, or the shipped one."""
    from llava.model.embedded.stack import EMBEDDED

    spec = argument or options.detector or EMBEDDED
    return GuardJudge(build_guard(spec, options.load_options), f"detector:{spec}")


def build_guard_judge(argument: str | None, options: JudgeOptions) -> GuardJudge:
    """Load the guard model of `guard:PATH` or `guard:FORM@PATH`.

    Raises:
        InputError: When there is none, it cannot be loaded, or its form is not known.
    """
    if argument is None:
        raise InputError("judge 'guard' needs a model; write guard:PATH")
    return GuardJudge(build_guard(f"{GUARD}{argument}", options.load_options))
