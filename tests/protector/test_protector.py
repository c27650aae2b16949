import math

import pytest

from llava import Detoxifier, HarmDetector, Protector
from llava.constants import REFUSAL, WITHHELD
from llava.data.schema import Action
from llava.errors import InputError
from llava.protector.guards.forms import FORMS
from tests.tiny_guards import SAFE, UNSAFE, name_guard

PROMPTS = ["Why?", "How do I bake bread?", "What is in the image?", "List the steps."]
RESPONSES = ["Because of the salt.\n", "Mix flour, water and yeast.", "  A numbered list \t", "1. first 2. second"]


@pytest.fixture(scope="module")
def detector(tiny_detector):
    return HarmDetector.from_pretrained(tiny_detector, dtype="float32")


@pytest.fixture(scope="module")
def detoxifier(tiny_detoxifier):
    return Detoxifier.from_pretrained(tiny_detoxifier, dtype="float32")


@pytest.fixture(scope="module")
def middle(detector):
    """A threshold that flags the upper half of RESPONSES."""
    scores = sorted(detector.score(RESPONSES, PROMPTS))
    return (scores[1] + scores[2]) / 2


@pytest.fixture
def lost_detector(tiny_detector):
    """A detector whose weights are gone, as after a lost device: every forward pass raises."""
    detector = HarmDetector.from_pretrained(tiny_detector)
    detector.classifier.to("meta")
    return detector


@pytest.fixture
def lost_detoxifier(tiny_detoxifier):
    """A detoxifier whose weights are gone."""
    detoxifier = Detoxifier.from_pretrained(tiny_detoxifier)
    detoxifier.model.to("meta")
    return detoxifier


def test_only_flagged_responses_change(detector, middle):
    results = Protector(detector, threshold=middle).guard(PROMPTS, RESPONSES)
    assert sum(result.flagged for result in results) == 2
    for response, result in zip(RESPONSES, results, strict=True):
        assert result.original_text == response
        if result.flagged:
            assert (result.text, result.action) == (REFUSAL, Action.REFUSED)
            assert result.harm_score >= middle
        else:
            assert (result.text, result.action) == (response, Action.PASSED)
            assert result.harm_score < middle


def test_rewrites_share_batches(detector, detoxifier):
    rows = []
    hook = detoxifier.model.register_forward_pre_hook(
        lambda *call: rows.append(len(call[2]["input_ids"])), with_kwargs=True
    )
    try:
        Protector(detector, detoxifier, threshold=1e-9).guard(PROMPTS * 5, RESPONSES * 5, 1, batch_size=15)
    finally:
        hook.remove()
    assert rows == [1, 15, 1, 5]  # what all prompts of a batch begin with is read once


def test_rewrite_is_scored_again(detector, detoxifier, middle):
    results = Protector(detector, detoxifier, threshold=middle).guard(PROMPTS, RESPONSES)
    for prompt, response, result in zip(PROMPTS, RESPONSES, results, strict=True):
        if not result.flagged:
            assert result.text == response
            continue
        rewrite = detoxifier.rewrite([prompt], [response])[0]
        score = detector.score([rewrite], [prompt])[0]
        if score < middle:
            assert (result.text, result.action) == (rewrite, Action.REWRITTEN)
        else:
            assert (result.text, result.action) == (REFUSAL, Action.REFUSED)
            assert result.reason.startswith("rewrite turned down")


def test_a_rewrite_that_passes_is_used(detector, detoxifier, middle):
    """Threshold between the response's score and the rewrite's: the rewrite must come through."""
    pairs = []
    for prompt, response in zip(PROMPTS, RESPONSES, strict=True):
        rewrite = detoxifier.rewrite([prompt], [response])[0]
        before, after = detector.score([response, rewrite], [prompt, prompt])
        if math.isfinite(after) and after < before:
            pairs.append((prompt, response, rewrite, (before + after) / 2))
    assert pairs, "no rewrite of the tiny detoxifier scores lower; choose another seed"
    for prompt, response, rewrite, threshold in pairs:
        (result,) = Protector(detector, detoxifier, threshold=threshold).guard([prompt], [response])
        assert (result.text, result.action) == (rewrite, Action.REWRITTEN)


@pytest.mark.parametrize("response", ["", " \n", None, 7])
def test_what_cannot_be_scored_is_withheld(detector, response):
    bad, good = Protector(detector, threshold=1.0).guard(["Why?", "Why?"], [response, "Because."])
    assert (bad.text, bad.action, bad.harm_score, bad.flagged) == (WITHHELD, Action.WITHHELD, None, True)
    assert bad.reason
    assert (good.text, good.action) == ("Because.", Action.PASSED)


def test_failing_detector_withholds_all(lost_detector):
    results = Protector(lost_detector).guard(PROMPTS, RESPONSES)
    assert {result.action for result in results} == {Action.WITHHELD}
    assert {result.text for result in results} == {WITHHELD}
    assert results[0].reason.startswith("detector failed")


def test_failing_detoxifier_refuses(detector, lost_detoxifier, middle):
    results = Protector(detector, lost_detoxifier, threshold=middle).guard(PROMPTS, RESPONSES)
    flagged = [result for result in results if result.flagged]
    assert flagged
    assert {result.action for result in flagged} == {Action.REFUSED}
    assert {result.text for result in flagged} == {REFUSAL}


def test_nan_weights_withhold(tiny_detector):
    import torch

    broken = HarmDetector.from_pretrained(tiny_detector)
    with torch.no_grad():
        broken.classifier.score.weight.fill_(float("nan"))
    assert {result.action for result in Protector(broken).guard(PROMPTS, RESPONSES)} == {Action.WITHHELD}


@pytest.mark.parametrize("threshold", [0.0, -1.0, 1.5, float("nan")])
def test_threshold_is_checked(detector, threshold):
    with pytest.raises(InputError, match="threshold"):
        Protector(detector, threshold=threshold)


def test_from_pretrained(tiny_detector, tiny_detoxifier):
    protector = Protector.from_pretrained(tiny_detector, tiny_detoxifier, threshold=0.9)
    assert protector.threshold == 0.9
    assert len(protector.guard(PROMPTS, RESPONSES)) == 4
    assert Protector.from_pretrained(tiny_detector).detoxifier is None
    assert protector.guard([], []) == []
    with pytest.raises(ValueError, match="1 prompts for 2"):
        protector.guard(["a"], ["b", "c"])


def test_a_rewrite_is_as_long_as_allowed(detector, detoxifier):
    """Flag everything; what stands instead of a response is the rewrite of that length, unless that is flagged too."""
    scores = detector.score(RESPONSES, PROMPTS)
    short = detoxifier.rewrite(PROMPTS, RESPONSES, max_new_tokens=3)
    assert short != detoxifier.rewrite(PROMPTS, RESPONSES)
    rewritten = detector.score(short, PROMPTS)
    threshold = min(scores)
    results = Protector(detector, detoxifier, threshold=threshold).guard(PROMPTS, RESPONSES, max_new_tokens=3)
    for result, rewrite, score in zip(results, short, rewritten, strict=True):
        assert result.text == (rewrite if score < threshold else REFUSAL)


class Odd:
    """A detector of somebody else's that gives what it was made with; `answer` may be an error."""

    name, identity, threshold = "odd", "odd@0.5", 0.5

    def __init__(self, answer):
        self.answer = answer

    def score(self, responses, prompts):
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


class SpeechlessError(RuntimeError):
    def __str__(self):
        raise ValueError("no words")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (None, "MalformedScoresError"),
        ("0.1", "MalformedScoresError"),
        (0.1, "MalformedScoresError"),
        ([0.1], "MalformedScoresError"),
        ([0.1] * 3, "MalformedScoresError"),
        ({0: 0.1, 1: 0.1}, "MalformedScoresError"),
        (iter([0.1, 0.1]), "MalformedScoresError"),
        (KeyError("score"), "KeyError"),
        (SpeechlessError(), "SpeechlessError"),
        ([None, "safe"], None),
        ([math.nan, math.inf], None),
        ([-0.1, 1.1], None),
        ([True, False], None),
        ([[0.1], [0.1]], None),
    ],
)
def test_whatever_a_detector_returns_nothing_unscored_passes(answer, error):
    results = Protector(Odd(answer)).guard(["Why?"] * 2, ["Because.", "So."])
    assert [(result.text, result.action, result.harm_score) for result in results] == [
        (WITHHELD, Action.WITHHELD, None)
    ] * 2
    for result in results:
        failure = result.failure
        assert (failure and (failure.part, failure.error)) == (error and ("detector", error))


def test_scores_of_any_number_type_count():
    import numpy as np
    import torch

    for answer in ([0.2, 1], np.array([0.2, 1.0], np.float32), torch.tensor([0.2, 1.0]), (np.float16(0.2), 1)):
        results = Protector(Odd(answer)).guard(["Why?"] * 2, ["Because.", "So."])
        assert [result.action for result in results] == [Action.PASSED, Action.REFUSED]


class Rewriter:
    """A detoxifier of somebody else's that gives what it was made with."""

    def __init__(self, answer):
        self.answer = answer

    def rewrite(self, prompts, responses, **options):
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (None, "TypeError"),
        ("ab", "TypeError"),
        (["I will not."], "ValueError"),
        (["I will not."] * 3, "ValueError"),
        ([None, 7], "TypeError"),
        (MemoryError("full"), "MemoryError"),
        (["", " \n"], None),
    ],
)
def test_whatever_a_detoxifier_returns_a_flagged_response_is_refused(answer, error):
    results = Protector(Odd([0.9, 0.8]), Rewriter(answer)).guard(["Why?"] * 2, ["Because.", "So."])
    assert [(result.text, result.action) for result in results] == [(REFUSAL, Action.REFUSED)] * 2
    assert [result.harm_score for result in results] == [0.9, 0.8]
    for result in results:
        failure = result.failure
        assert (failure and (failure.part, failure.error)) == (error and ("detoxifier", error))
        assert result.reason


def test_a_rewrite_that_is_text_is_shown_beside_one_that_is_none():
    class ByText(Odd):
        def score(self, responses, prompts):
            return [0.9 if text.startswith("bad") else 0.1 for text in responses]

    results = Protector(ByText(None), Rewriter(["I will not.", 7])).guard(["Why?"] * 2, ["bad 1", "bad 2"])
    assert [(result.text, result.action) for result in results] == [
        ("I will not.", Action.REWRITTEN),
        (REFUSAL, Action.REFUSED),
    ]
    assert results[0].failure is None
    assert results[1].failure.error == "TypeError"


def test_a_detector_that_fails_at_the_rewrite_is_told(detector):
    class Once(Odd):
        calls = 0

        def score(self, responses, prompts):
            self.calls += 1
            if self.calls > 1:
                raise RuntimeError("lost")
            return [0.9]

    (result,) = Protector(Once(None), Rewriter(["I will not."])).guard(["Why?"], ["Because."])
    assert (result.text, result.action) == (REFUSAL, Action.REFUSED)
    assert (result.failure.part, result.failure.error, result.failure.message) == ("detector", "RuntimeError", "lost")
    assert result.reason == "rewrite turned down: detector failed: RuntimeError"


def test_a_threshold_is_a_number(detector):
    for threshold in (True, "0.5"):
        with pytest.raises(InputError, match="threshold"):
            Protector(detector, threshold=threshold)


@pytest.mark.parametrize("form", list(FORMS))
def test_a_guard_model_of_each_family_guards(tiny_guard, tiny_detoxifier, form):
    protector = Protector.from_pretrained(name_guard(form, tiny_guard(form)), device="cpu", dtype="float32")
    flagged, passed = protector.guard(["How?"] * 2, [UNSAFE, SAFE])
    assert (flagged.action, flagged.text) == (Action.REFUSED, REFUSAL)
    assert (passed.action, passed.text) == (Action.PASSED, SAFE)
    assert flagged.harm_score > 0.8


def test_where_the_harm_is_is_said_of_flagged_responses_when_asked(detector, middle):
    protector = Protector(detector, threshold=middle)
    results = protector.guard(PROMPTS, RESPONSES, explain=True)
    for prompt, response, result in zip(PROMPTS, RESPONSES, results, strict=True):
        expected = tuple(detector.explain(prompt, response)) if result.flagged else None
        assert result.token_scores == expected
    assert all(result.token_scores is None for result in protector.guard(PROMPTS, RESPONSES))


def test_a_guard_that_cannot_tell_where_the_harm_is_flags_all_the_same(detector, middle, caplog):
    class Plain:
        """Another guard, which scores and nothing else."""

        name, identity, threshold = "plain", "plain@1", middle

        def score(self, responses, prompts):
            return detector.score(responses, prompts)

    class Failing(Plain):
        """One whose explanation fails."""

        def explain(self, prompt, response):
            raise RuntimeError("device lost")

    for guard in (Plain(), Failing()):
        results = Protector(guard).guard(PROMPTS, RESPONSES, explain=True)
        assert sum(result.flagged for result in results) == 2
        assert all(result.token_scores is None for result in results)
    assert "could not say where the harm is" in caplog.text
