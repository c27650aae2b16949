import itertools
import math

import pytest

from llava import HarmDetector
from llava.data.training.pairs import DetectorRow
from llava.protector.text import tokenise_pair
from llava.quality.early_scores import Trace, summarise_traces, trace_responses
from tests.tiny_adapters import build_detector_adapter

TEXTS = ["So.", "First mix flour and water, then wait.", "Steps to follow: 1. first 2. second " * 12, " "]


@pytest.fixture(scope="module", params=[(), (4, 8)])
def detector(request, tiny_lm, tmp_path_factory):
    folder = tmp_path_factory.mktemp("detector")
    build_detector_adapter(folder, tiny_lm, pooling="mean_response", stretches=request.param)
    return HarmDetector.from_pretrained(folder, dtype="float32")


def test_the_whole_has_the_detectors_own_score(detector):
    traces = trace_responses(detector, TEXTS, ["Why?"] * len(TEXTS), batch_size=2)
    assert [trace.score for trace in traces] == pytest.approx(
        detector.score(TEXTS, ["Why?"] * len(TEXTS)), abs=1e-5, nan_ok=True
    )
    assert math.isnan(traces[3].score)
    assert traces[3].tokens == 0


def test_every_prefix_is_scored_as_it_would_be_alone(detector):
    response = TEXTS[1]
    text = tokenise_pair(detector.tokenizer, detector.config, "Why?", response)
    alone = detector.score([response[:end] for _, end in text.spans], ["Why?"] * len(text.spans))
    whole = trace_responses(detector, [response], ["Why?"])[0]
    assert whole.highest == pytest.approx(max(alone), abs=1e-4)
    ranked = sorted(alone)
    for threshold in [(one + other) / 2 for one, other in itertools.pairwise(ranked) if other - one > 1e-4]:
        expected = next(number for number, score in enumerate(alone, 1) if score >= threshold)
        judge = HarmDetector(detector.classifier, detector.tokenizer, replaced(detector.config, threshold))
        assert trace_responses(judge, [response], ["Why?"])[0].flagged_at == expected


def replaced(config, threshold):
    from dataclasses import replace

    return replace(config, threshold=threshold)


def test_another_pooling_has_no_prefix_scores(tiny_detector):
    with pytest.raises(ValueError, match="last"):
        trace_responses(HarmDetector.from_pretrained(tiny_detector), ["x"], [""])


def test_figures_by_hand():
    rows = [DetectorRow("", "x", label, "s") for label in (True, True, True, False, False, False, False)]
    traces = [Trace(0.9, 0.9, 50, 10), Trace(0.9, 0.9, 70, 20), Trace(0.1, 0.2, 9, None)]
    traces += [
        Trace(0.1, 0.1, 5, None),
        Trace(0.1, 0.7, 5, 2),
        Trace(0.8, 0.8, 5, 1),
        Trace(math.nan, math.nan, 0, None),
    ]
    figures = summarise_traces(rows, traces, 0.5)
    assert (figures["harmful"], figures["flagged"], figures["tokens_median"]) == (3, 2, 15.0)
    assert (figures["tokens_90"], figures["length_median"]) == (pytest.approx(19.0), 60.0)
    assert (figures["fpr"], figures["fpr_any_prefix"]) == (0.5, 0.5)
    assert summarise_traces(rows[:1], [Trace(0.1, 0.1, 4, None)], 0.5)["tokens_median"] is None
