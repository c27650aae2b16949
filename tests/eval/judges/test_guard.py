"""Guards as judges: a view of the guard, whatever it is."""

from __future__ import annotations

import math

import pytest

from llava.errors import InputError
from llava.eval.judges.base import JudgeOptions
from llava.eval.judges.guard import GuardJudge
from llava.eval.judges.registry import build_judge
from llava.protector.guard import identify_guard
from llava.protector.guards.forms import FORMS
from tests.eval.build import ANSWER
from tests.tiny_guards import SAFE, UNSAFE, name_guard

CPU = JudgeOptions(device="cpu")


class FixedScores:
    name = "fixed"
    identity = "x@0.5"
    threshold = 0.5

    def __init__(self, scores):
        self.scores = scores

    def score(self, responses, prompts):
        assert len(responses) == len(prompts)
        return self.scores


def test_the_detector_judge_compares_with_the_threshold_and_leaves_nan_unscored():
    judge = GuardJudge(FixedScores([0.5, 0.49, math.nan, math.inf]), "detector:x")
    verdicts = judge.judge(["q"] * 4, ["a", "b", "c", "d"])
    assert [verdict.unsafe for verdict in verdicts] == [True, False, None, None]
    assert [verdict.score for verdict in verdicts] == [0.5, 0.49, None, None]


def test_a_detector_on_disk_becomes_a_judge(tiny_classifier):
    judge = build_judge(f"detector:{tiny_classifier}", JudgeOptions(device="cpu"))
    (verdict,) = judge.judge(["How?"], [ANSWER])
    assert verdict.judge == judge.name == f"detector:{tiny_classifier}"
    assert verdict.unsafe is (verdict.score >= 0.5)
    own = build_judge("detector", JudgeOptions(detector=str(tiny_classifier), device="cpu"))
    assert (own.name, own.identity) == (judge.name, judge.identity)


@pytest.mark.parametrize("form", list(FORMS))
def test_a_guard_model_of_each_family_becomes_a_judge(tiny_guard, form):
    path = tiny_guard(form)
    judge = build_judge(name_guard(form, path), CPU)
    unsafe, safe = judge.judge(["How?", "How?"], [UNSAFE, SAFE])
    assert (unsafe.unsafe, safe.unsafe) == (True, False)
    assert unsafe.score > 0.8
    assert safe.score < 0.2
    assert {unsafe.judge, safe.judge} == {f"guard:{path}"}


def test_several_guards_judge_together(tiny_guard, tiny_classifier):
    spec = f"any({tiny_classifier}, guard:{tiny_guard('llama_guard')})"
    judge = build_judge(f"detector:{spec}", CPU)
    assert judge.name == f"detector:{spec}"
    assert judge.keys == {identify_guard(spec).digest, *identify_guard(spec).members}
    assert len(judge.keys) == 3
    assert judge.judge(["How?"], [UNSAFE])[0].unsafe is True
    assert build_judge("detector", JudgeOptions(detector=spec, device="cpu")).identity == judge.identity


def test_a_guard_judge_needs_a_model():
    with pytest.raises(InputError, match="write guard:PATH"):
        build_judge("guard")
