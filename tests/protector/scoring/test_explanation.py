import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llava import HarmDetector
from llava.protector.config import ProtectorConfig
from llava.protector.scoring.explanation import MOST_ALIGNED, SPAN, align_positions, explain_tokens, smooth_logits
from llava.protector.text import cut_windows, tokenise_pair

WORDS = [f"word{number}" for number in range(12)]


@pytest.fixture
def detector(tiny_detector):
    return HarmDetector.from_pretrained(tiny_detector, dtype="float32")


def heat(detector, prompt, response, hot):
    """Set the head by hand: it says 6 at the tokens of `response` inside `hot`, -6 at the others."""
    text = tokenise_pair(detector.tokenizer, detector.config, prompt, response)
    ids = torch.tensor([text.ids])
    with torch.inference_mode():
        hidden = detector.classifier.read(ids, torch.ones_like(ids))[0, text.head :].double()
    wanted = torch.tensor([6.0 if hot[0] <= left and right <= hot[1] else -6.0 for left, right in text.spans]).double()
    assert len(wanted) <= hidden.shape[1], "more tokens than weights: the head cannot say it of each"
    with torch.no_grad():
        weight = torch.linalg.pinv(hidden) @ wanted
        detector.classifier.score.weight.copy_(weight[None].float())
    return text


def test_the_hot_span_is_found(detector):
    response = "It is fine. BAD BAD It is fine."
    hot = (response.index("BAD"), response.index("BAD") + 7)
    text = heat(detector, "Why?", response, hot)
    found = explain_tokens(detector.classifier, detector.config, text, span=1)
    assert [(token.start, token.end) for token in found] == text.spans
    for token in found:
        inside = hot[0] <= token.start and token.end <= hot[1]
        assert (token.score > 0.9) == inside
        assert inside or token.score < 0.1
    smooth = explain_tokens(detector.classifier, detector.config, text, span=3)
    assert hot[0] <= max(smooth, key=lambda token: token.score).start <= hot[1]


@pytest.mark.parametrize("response", ["So.", " ".join(WORDS), "  two\n\nlines é 図 🙂 ", " ".join(WORDS * 12)])
def test_the_offsets_cover_the_response(detector, response):
    found = detector.explain("What is it?", response)
    covered = set()
    for token in found:
        assert 0 <= token.start <= token.end <= len(response)
        assert 0 <= token.score <= 1
        covered |= set(range(token.start, token.end))
    assert {at for at, letter in enumerate(response) if not letter.isspace()} <= covered
    assert found == sorted(found, key=lambda token: token.start)


def test_windows_agree_whatever_the_batch(detector):
    response = " ".join(WORDS * 12)
    text = tokenise_pair(detector.tokenizer, detector.config, "Why?", response)
    assert len(cut_windows(text, detector.config.max_length)) > 3
    together = explain_tokens(detector.classifier, detector.config, text)
    alone = explain_tokens(detector.classifier, detector.config, text, batch_size=1)
    assert [token.score for token in together] == pytest.approx([token.score for token in alone], abs=1e-5)


def test_nothing_to_explain(detector):
    assert detector.explain("Why?", "") == []
    assert detector.explain("Why?", " \n ") == []


def test_a_short_response_has_its_own_score_everywhere(tiny_lm, tmp_path):
    """In half a span around any token lies all of it."""
    from tests.tiny_adapters import build_detector_adapter

    detector = HarmDetector.from_pretrained(build_detector_adapter(tmp_path / "d", tiny_lm, pooling="mean_response"))
    scores = {token.score for token in detector.explain("Why?", "So.")}
    assert scores
    assert all(score == pytest.approx(detector.score(["So."], ["Why?"])[0], abs=1e-5) for score in scores)


def test_label_one_may_mean_safe(detector):
    flipped = HarmDetector(
        detector.classifier, detector.tokenizer, ProtectorConfig(kind="detector", positive_label="safe", max_length=64)
    )
    for one, other in zip(detector.explain("", "So it is."), flipped.explain("", "So it is."), strict=True):
        assert one.score == pytest.approx(1 - other.score, abs=1e-9)


def test_nan_is_no_score(detector):
    with torch.no_grad():
        detector.classifier.score.weight.fill_(math.nan)
    assert all(math.isnan(token.score) for token in detector.explain("", "So it is."))


def test_the_mean_around_each_token_by_hand():
    logits, mask = torch.tensor([[7.0, 0.0, 2.0, 4.0, 6.0, 7.0]]), torch.tensor([[0, 1, 1, 1, 1, 0]])
    assert smooth_logits(logits, mask, 1)[0].tolist() == [0, 0, 2, 4, 6, 0]
    assert smooth_logits(logits, mask, 2)[0].tolist() == [0, 0, 1, 3, 5, 0]
    assert smooth_logits(logits, mask, SPAN)[0].tolist() == [0, 3, 3, 3, 3, 0]


def test_a_disguised_answer_is_read_without_its_disguise_and_shown_with_it(tiny_detector):
    detector = HarmDetector.from_pretrained(tiny_detector, dtype="float32")
    detector.config = replace(detector.config, normalise=True)
    plain, disguised = "how to bake bread with yeast", "h o w   t o b4ke br\u200b34d w1th yеаst"
    named, found = detector.explain("Why?", plain), detector.explain("Why?", disguised)
    assert [token.score for token in found] == pytest.approx([token.score for token in named], abs=1e-6)
    assert (found[0].start, found[-1].end) == (0, len(disguised))
    assert all(0 <= one.start <= one.end <= other.end for one, other in pairwise(found))


def test_a_very_long_answer_is_explained_as_it_stands(tiny_detector):
    detector = HarmDetector.from_pretrained(tiny_detector, dtype="float32")
    detector.config = replace(detector.config, normalise=True)
    response = "Ｂoil. " * (MOST_ALIGNED // 6 + 1)
    assert detector.explain("Why?", response)[-1].end == len(response)


@given(st.text(max_size=30), st.text(max_size=30))
def test_positions_stay_inside_and_in_order(plain, text):
    places = align_positions(plain, text)
    assert len(places) == len(plain) + 1
    assert places == sorted(places)
    assert set(places) <= set(range(len(text) + 1))
    assert align_positions(text, text) == list(range(len(text) + 1))
