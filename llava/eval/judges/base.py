"""What every judge offers, and what it may be built with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from llava.data.schema import Verdict
from llava.eval.judges.criteria import Asked
from llava.model.answering.client import TIMEOUT
from llava.model.options import LoadOptions


class Judge(Protocol):
    """What every judge offers."""

    name: str
    """How reports call it, e.g. `keyword` or `detector:embedded`."""
    identity: str
    """Changes when the same name would judge differently (another checkpoint, another threshold)."""

    def judge(self, prompts: Sequence[str], texts: Sequence[str]) -> list[Verdict]:
        """Return one verdict for each text, in order; texts are not empty."""
        ...


@runtime_checkable
class CriterionJudge(Judge, Protocol):
    """A judge that asks by the scenario's criterion, and whose verdicts are stored as they come: they may cost money.

    Others judge every scenario alike and have `judge` alone.
    """

    def judge_each(self, asked: Sequence[Asked]) -> Iterator[list[tuple[Asked, Verdict]]]:
        """Yield each question with its verdict, in any order, in groups as they are answered."""
        ...


@dataclass(frozen=True, kw_only=True)
class JudgeOptions(LoadOptions):
    """What a judge may need beside its specification; how it is loaded, where it is a model in this process."""

    detector: str | None = None
    """Detector of the run, which `detector` without a path stands for."""
    request_timeout: float = TIMEOUT
    """Seconds that one answer of a server may take."""
