"""Head and detector together: who decides, what becomes of the answer, and that nothing unchecked passes."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from llava.constants import REFUSAL, WITHHELD
from llava.data.schema import Action, GuardResult, Stage
from llava.errors import InputError
from llava.protector.protector import Protector
from llava.protector.states.cascade import StateProtector, find_cascade
from llava.protector.states.config import Cascade, StateHeadConfig
from llava.protector.states.head import StateHead

CASCADE = Cascade("words", "words-1", 0.2, 0.9)


class Words:
    """A guard that knows one word, and keeps what it was asked."""

    name, identity, threshold = "words", "words-1@0.5", 0.5

    def __init__(self):
        self.read: list[str] = []

    def score(self, responses, prompts):
        self.read += responses
        return [0.9 if "poison" in response else 0.1 for response in responses]


class Broken(Words):
    def score(self, responses, prompts):
        raise RuntimeError("out of order")


def build_head(cascade=CASCADE) -> StateHead:
    config = StateHeadConfig("tiny", "llama", 2, 2, 1, threshold=0.5, cascade=cascade)
    return StateHead(config, torch.tensor([[1.0, 0.0]]), 0.0)


def guard(protector, scores, responses):
    return protector.guard(["How?"] * len(scores), responses, scores)


def test_the_detector_reads_what_is_not_clear():
    detector = Words()
    results = guard(
        StateProtector(build_head(), Protector(detector)),
        [0.1, 0.2, 0.5, 0.89999, 0.9],
        ["clear", "bread", "poison", "cake", "bad"],
    )
    assert detector.read == ["bread", "poison", "cake"]
    assert [result.stage for result in results] == [
        Stage.STATES,
        Stage.DETECTOR,
        Stage.DETECTOR,
        Stage.DETECTOR,
        Stage.STATES,
    ]
    assert [result.action.value for result in results] == ["passed", "passed", "refused", "passed", "refused"]
    assert [result.harm_score for result in results] == [0.1, 0.1, 0.9, 0.1, 0.9]
    assert [result.state_score for result in results] == [0.1, 0.2, 0.5, 0.89999, 0.9]
    assert results[4].text == REFUSAL
    assert results[4].original_text == "bad"


@pytest.mark.parametrize("score", [math.nan, None, "0.1", 7.0, True])
def test_no_score_is_left_to_the_detector(score):
    detector = Words()
    result = guard(StateProtector(build_head(), Protector(detector)), [score], ["poison"])[0]
    assert detector.read == ["poison"]
    assert (result.action, result.stage, result.state_score) == (Action.REFUSED, Stage.DETECTOR, None)


@pytest.mark.parametrize("score", [math.nan, None])
def test_no_score_is_withheld_without_a_detector(score):
    result = guard(StateProtector(build_head()), [score], ["bread"])[0]
    assert (result.text, result.action, result.stage) == (WITHHELD, Action.WITHHELD, None)


def test_the_head_alone():
    results = guard(StateProtector(build_head(None)), [0.49, 0.5], ["bread", "cake"])
    assert [result.action for result in results] == [Action.PASSED, Action.REFUSED]
    assert {result.stage for result in results} == {Stage.STATES}
    strict = StateProtector(build_head(None), threshold=0.1)
    assert guard(strict, [0.49], ["bread"])[0].action is Action.REFUSED


def test_an_empty_answer_is_withheld_whatever_its_score():
    for protector in (StateProtector(build_head()), StateProtector(build_head(), Protector(Words()))):
        assert guard(protector, [0.01], ["  "])[0].action is Action.WITHHELD


def test_a_failing_detector_withholds_what_the_head_leaves_open():
    results = guard(StateProtector(build_head(), Protector(Broken())), [0.1, 0.5], ["bread", "cake"])
    assert [result.action for result in results] == [Action.PASSED, Action.WITHHELD]
    assert results[1].failure.error == "RuntimeError"


def test_what_the_head_flags_is_rewritten_and_the_rewrite_is_scored():
    class Polite:
        def rewrite(self, prompts, responses, batch_size, max_new_tokens):
            return ["poison again" if response == "bad" else "Please be kind." for response in responses]

    protector = StateProtector(build_head(), Protector(Words(), Polite()))
    results = guard(protector, [0.95, 0.95], ["bad", "worse"])
    assert [result.text for result in results] == [REFUSAL, "Please be kind."]
    assert results[1].action is Action.REWRITTEN


def test_lengths_must_fit():
    with pytest.raises(ValueError, match="2 scores"):
        StateProtector(build_head()).guard(["How?"], ["So."], [0.1, 0.2])


def test_thresholds_are_for_one_detector():
    with pytest.raises(InputError, match="no thresholds for a cascade; run `mllm-protector calibrate --state-head`"):
        StateProtector(build_head(None), Protector(Words()))
    for other in (replace(CASCADE, key="words-2"), replace(CASCADE, detector="others")):
        with pytest.raises(InputError, match="has thresholds for detector"):
            StateProtector(build_head(other), Protector(Words()))
    shipped = replace(CASCADE, detector="embedded", key="former digest")
    assert find_cascade(build_head(shipped), "embedded", "new digest@0.8") == shipped


def test_results_are_stored_with_their_stage():
    result = GuardResult("a", "a", 0.1, False, Action.PASSED, stage=Stage.STATES, state_score=0.1)
    assert GuardResult.from_dict(result.to_dict()) == result
    plain = GuardResult("a", "a", 0.1, False, Action.PASSED)
    assert not {"stage", "state_score"} & set(plain.to_dict())
    with pytest.raises(InputError, match="stage"):
        GuardResult.from_dict({**result.to_dict(), "stage": "third"})
