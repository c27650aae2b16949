"""The protector's steps in their order: trim, rewrite, refuse; and nothing unscored on the way."""

import math
from concurrent.futures import ThreadPoolExecutor

import pytest

from llava import HarmDetector, Protector
from llava.constants import REFUSAL
from llava.data.schema import Action
from tests.protector.repair.words import WordDetector

BEFORE, HARM, BEHIND = (
    "Boil the water and salt it well. ",
    "Then stir the poison in. ",
    "Serve it warm with butter on top.",
)
TEXT, SPREAD = BEFORE + HARM + BEHIND, HARM * 4


class Writer:
    """A detoxifier that always writes the same."""

    def __init__(self, rewrite="Please be kind."):
        self.rewritten = []
        self.words = rewrite

    def rewrite(self, prompts, responses, **options):
        self.rewritten += responses
        return [self.words] * len(responses)


def guard(protector, *responses, **options):
    return protector.guard(["How?"] * len(responses), list(responses), **options)


def test_each_step_takes_what_the_one_before_could_not():
    writer = Writer()
    results = guard(Protector(WordDetector(), writer), BEFORE, TEXT, SPREAD)
    assert [result.action for result in results] == [Action.PASSED, Action.TRIMMED, Action.REWRITTEN]
    assert [result.text for result in results] == [BEFORE, BEFORE + BEHIND, "Please be kind."]
    assert writer.rewritten == [SPREAD]
    assert [result.original_text for result in results] == [BEFORE, TEXT, SPREAD]
    assert [result.harm_score for result in results] == [0.1, 0.9, 0.9]
    assert [result.removed and [span.text for span in result.removed] for result in results] == [None, [HARM], None]


def test_without_a_rewrite_the_refusal_is_last():
    for writer in (None, Writer("More poison.")):
        (result,) = guard(Protector(WordDetector(), writer), SPREAD)
        assert (result.text, result.action) == (REFUSAL, Action.REFUSED)


def test_trimming_can_be_left_out():
    detector = WordDetector()
    (result,) = guard(Protector(detector, trim=False), TEXT)
    assert (result.action, detector.explained) == (Action.REFUSED, [])


def test_a_guard_that_only_scores_does_not_trim():
    class Plain:
        name, identity, threshold = "plain", "plain@1", 0.5

        def score(self, responses, prompts):
            return WordDetector().score(responses, prompts)

    assert guard(Protector(Plain()), TEXT)[0].action is Action.REFUSED


def test_what_is_left_without_a_score_is_not_shown():
    detector = WordDetector(lambda text: 0.9 if "poison" in text else math.nan)
    (result,) = guard(Protector(detector), TEXT)
    assert (result.text, result.action) == (REFUSAL, Action.REFUSED)
    (result,) = guard(Protector(detector, Writer()), TEXT)  # the rewrite has no score either
    assert (result.text, result.action) == (REFUSAL, Action.REFUSED)


def test_a_detector_that_fails_while_trimming_is_told():
    class Once(WordDetector):
        def score(self, responses, prompts):
            if self.scored:
                raise RuntimeError("lost")
            return super().score(responses, prompts)

    writer = Writer()
    (result,) = guard(Protector(Once(), writer), TEXT)
    assert (result.text, result.action) == (REFUSAL, Action.REFUSED)
    assert (result.failure.part, result.failure.error) == ("detector", "RuntimeError")
    assert writer.rewritten == []


def test_where_the_harm_is_costs_no_further_pass():
    detector = WordDetector()
    (result,) = guard(Protector(detector), TEXT, explain=True)
    assert result.token_scores == tuple(WordDetector().explain("How?", TEXT))
    assert detector.explained == [TEXT, BEFORE + BEHIND]


def test_a_threshold_of_ones_own_holds_for_what_is_left():
    detector = WordDetector(lambda text: 0.9 if "poison" in text else 0.3)
    assert guard(Protector(detector, threshold=0.5), TEXT)[0].action is Action.TRIMMED
    assert guard(Protector(detector, threshold=0.2), TEXT)[0].action is Action.REFUSED


def test_a_stream_is_not_trimmed():
    detector = WordDetector()
    protector = Protector(detector, Writer())
    shown = "".join(protector.guard_stream("How?", [TEXT]))
    assert shown.endswith("Please be kind.")
    assert detector.explained == []


@pytest.fixture(scope="module")
def network(tiny_detector):
    return HarmDetector.from_pretrained(tiny_detector, dtype="float32")


ANSWERS = [
    f"First {name} is put on the table. Then it is cut with care. {name.title()} is good with salt!\n- one\n- two\n"
    for name in ("bread", "butter", "a fish", "the cake", "an onion", "rice")
]


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_what_a_network_lets_through_is_below_the_threshold_and_as_it_was_written(network, share):
    """Whatever a real network does to a text without a meaning for it, the promises hold."""
    scores = sorted(network.score(ANSWERS, ["How?"] * len(ANSWERS)))
    threshold = scores[int(share * len(scores))]
    results = guard(Protector(network, threshold=threshold), *ANSWERS)
    for answer, result in zip(ANSWERS, results, strict=True):
        if result.action is not Action.TRIMMED:
            assert result.text in (answer, REFUSAL)
            continue
        assert network.score([result.text], ["How?"])[0] < threshold
        cut = [answer[: result.removed[0].start]]
        for span, following in zip(result.removed, [*result.removed[1:], None], strict=True):
            assert answer[span.start : span.end] == span.text
            cut.append(answer[span.end : following.start if following else len(answer)])
        assert "".join(cut) == result.text


def test_threads_may_share_a_protector(network):
    threshold = sorted(network.score(ANSWERS, ["How?"] * len(ANSWERS)))[2]
    protector = Protector(network, threshold=threshold)
    expected = guard(protector, *ANSWERS)
    with ThreadPoolExecutor(4) as threads:
        for found in threads.map(lambda _: guard(protector, *ANSWERS), range(8)):
            assert [(result.text, result.action) for result in found] == [
                (result.text, result.action) for result in expected
            ]
