import base64
import dataclasses
import math
import shutil

import pytest
import torch

from llava import HarmDetector
from llava.errors import InputError
from llava.protector.config import ProtectorConfig
from tests.tiny import build_causal_lm
from tests.tiny_adapters import build_detector_adapter

TEXTS = ["Mix flour and water.", "I am sorry, I cannot help.", "Steps to follow: 1. first 2. second " * 12]


@pytest.fixture(scope="module")
def detector(tiny_detector):
    return HarmDetector.from_pretrained(tiny_detector, dtype="float32")


def test_scores_are_probabilities_that_depend_on_the_text(detector):
    scores = detector.score(TEXTS, ["Why?"] * 3)
    assert all(0 < score < 1 for score in scores)
    assert len(set(scores)) == 3


def test_scores_do_not_depend_on_the_batch(detector):
    together = detector.score(TEXTS, ["Why?"] * 3, batch_size=16)
    alone = [detector.score([text], ["Why?"], batch_size=1)[0] for text in TEXTS]
    assert together == pytest.approx(alone, abs=1e-5)


def test_the_adapter_matters(tiny_detector, tiny_lm, tmp_path, detector):
    other = HarmDetector.from_pretrained(build_detector_adapter(tmp_path / "other", tiny_lm, seed=7), dtype="float32")
    assert detector.score(TEXTS) != pytest.approx(other.score(TEXTS), abs=1e-3)


def test_long_response_takes_its_worst_window(detector):
    from llava.protector.text import encode_windows

    windows = encode_windows(detector.tokenizer, detector.config, "Why?", TEXTS[2])
    assert len(windows) > 2
    singles = [detector._score_windows([window], 1)[0] for window in windows]
    assert detector.score([TEXTS[2]], ["Why?"])[0] == pytest.approx(max(singles), abs=1e-5)


def test_released_form_label_one_is_safe(tiny_classifier):
    released = HarmDetector.from_pretrained(tiny_classifier, dtype="float32")
    flipped = HarmDetector(
        released.classifier, released.tokenizer, ProtectorConfig(kind="detector", positive_label="harmful")
    )
    assert released.score(TEXTS) == pytest.approx([1 - score for score in flipped.score(TEXTS)])


def test_temperature_softens(detector):
    config = ProtectorConfig(kind="detector", positive_label="harmful", max_length=64, temperature=4.0)
    soft = HarmDetector(detector.classifier, detector.tokenizer, config)
    for hard_score, soft_score in zip(detector.score(TEXTS), soft.score(TEXTS), strict=True):
        logit = math.log(hard_score / (1 - hard_score))
        assert soft_score == pytest.approx(1 / (1 + math.exp(-logit / 4)), abs=1e-6)


def test_what_cannot_be_scored_is_nan(detector):
    assert math.isnan(detector.score(["", "fine"])[0])
    assert math.isfinite(detector.score(["", "fine"])[1])


def test_one_broken_window_makes_the_response_nan(tiny_detector):
    broken = HarmDetector.from_pretrained(tiny_detector)
    with torch.no_grad():
        broken.classifier.score.weight.fill_(float("nan"))
    assert all(math.isnan(score) for score in broken.score(TEXTS))


def test_disguises_are_taken_off_where_the_config_asks_for_it(detector):
    config = dataclasses.replace(detector.config, normalise=True)
    reader = HarmDetector(detector.classifier, detector.tokenizer, config)
    plain, disguised = "Mix flour and water.", "Mi\u200bx flоur and w\u0336a\u0336t\u0336e\u0336r\u0336."
    assert reader.score([disguised, plain]) == pytest.approx(detector.score([plain, plain]))
    assert detector.score([disguised]) != pytest.approx(detector.score([plain]), abs=1e-4)


def test_a_hidden_text_counts_when_it_is_worse(detector):
    config = dataclasses.replace(detector.config, normalise=True)
    reader = HarmDetector(detector.classifier, detector.tokenizer, config)
    said = ["Mix flour and water, then wait.", "I am sorry, I cannot help with that."]
    scores = detector.score(said)
    for outer in said:
        for inner, score in zip(said, scores, strict=True):
            text = f"{outer} {base64.b64encode(inner.encode()).decode()}"
            assert reader.score([text])[0] == pytest.approx(max(score, detector.score([text])[0]))


def test_prompts_and_responses_must_match(detector):
    with pytest.raises(ValueError, match="2 prompts for 1"):
        detector.score(["a"], ["b", "c"])


def test_no_responses_no_scores(detector):
    assert detector.score([]) == []


def test_adapter_for_another_base(tiny_detector, tmp_path):
    wide = build_causal_lm(tmp_path / "wide", hidden_size=48, intermediate_size=96)
    with pytest.raises(InputError, match="does not fit base") as caught:
        HarmDetector.from_pretrained(tiny_detector, base=str(wide))
    assert "\n" not in str(caught.value)
    shallow = build_causal_lm(tmp_path / "shallow", num_hidden_layers=1)
    with pytest.raises(InputError, match=r"layers\.1"):
        HarmDetector.from_pretrained(tiny_detector, base=str(shallow))


def test_truncated_adapter_weights(tiny_detector, tmp_path):
    folder = shutil.copytree(tiny_detector, tmp_path / "adapter")
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"adapter_model\.safetensors cannot be read"):
        HarmDetector.from_pretrained(folder)
