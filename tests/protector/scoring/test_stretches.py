import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llava import HarmDetector
from llava.protector.classifier import HarmClassifier, load_sequence_classifier, pad_windows
from llava.protector.scoring.stretches import pool_stretches, running_logits, stretch_means
from llava.protector.text import Window
from tests.tiny_adapters import build_detector_adapter

LOGITS = torch.tensor([[50.0, 1.0, -3.0, 5.0, 3.0, -9.0, 50.0]])
MASK = torch.tensor([[0, 1, 1, 1, 1, 1, 0]])


def test_means_of_stretches_by_hand():
    assert stretch_means(LOGITS, MASK, 2)[0].tolist() == [*[-math.inf] * 2, -1.0, 1.0, 4.0, -3.0, -math.inf]
    assert stretch_means(LOGITS, MASK, 5)[0].tolist() == [*[-math.inf] * 5, pytest.approx(-0.6), -math.inf]
    assert stretch_means(LOGITS, MASK, 6).isinf().all()
    assert stretch_means(LOGITS, MASK, 99).isinf().all()


@pytest.mark.parametrize(
    ("lengths", "highest"), [((), -0.6), ((2,), 4.0), ((1, 2), 5.0), ((3,), 5 / 3), ((6, 99), -0.6)]
)
def test_the_highest_stretch_by_hand(lengths, highest):
    assert pool_stretches(LOGITS, MASK, lengths).tolist() == [pytest.approx(highest)]


@pytest.mark.parametrize(("margin", "highest"), [(0.0, 4.0), (1.5, 2.5), (9.0, -0.6)])
def test_the_margin_is_taken_off_stretches_alone(margin, highest):
    assert pool_stretches(LOGITS, MASK, (2,), margin).tolist() == [pytest.approx(highest)]
    assert running_logits(LOGITS, MASK, (2,), margin)[0, -1].item() == pytest.approx(highest)


def test_every_prefix_is_scored_as_if_the_response_ended_there():
    found = running_logits(LOGITS, MASK, (2,))[0].tolist()
    assert found[0] == -math.inf
    for end in range(2, 7):
        short = pool_stretches(LOGITS[:, :end], MASK[:, :end], (2,)).item()
        # What a stretch once showed stays, so a prefix never undoes it; the mean may fall.
        assert found[end - 1] == pytest.approx(short)
    assert found[6] == found[5]


def test_nan_stays_nan_and_padding_may_be_anything():
    logits = torch.tensor([[1.0, math.nan, 2.0], [1.0, 2.0, math.nan]])
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    first, second = pool_stretches(logits, mask, (1, 2)).tolist()
    assert math.isnan(first)
    assert second == 2.0
    assert pool_stretches(torch.tensor([[-math.inf, 1.0]]), torch.ones(1, 2), (1,)).tolist() == [1.0]
    assert math.isnan(pool_stretches(torch.tensor([[math.nan, 1.0]]), torch.ones(1, 2), (9,)).item())


@given(
    st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=12),
    st.lists(st.integers(1, 14), max_size=3),
    st.integers(0, 3),
    st.integers(0, 3),
)
def test_padding_changes_nothing(values, lengths, before, behind):
    logits = torch.tensor([[7.0] * before + values + [9.0] * behind])
    mask = torch.tensor([[0] * before + [1] * len(values) + [0] * behind])
    alone = torch.tensor([values])
    expected = [sum(values) / len(values)]
    for length in lengths:
        expected += [sum(values[at : at + length]) / length for at in range(len(values) - length + 1)]
    found = pool_stretches(logits, mask, lengths)
    assert found.item() == pytest.approx(max(expected), abs=1e-4)
    assert found.item() == pytest.approx(pool_stretches(alone, torch.ones_like(alone), lengths).item(), abs=1e-5)


def test_the_network_judges_by_the_highest_stretch(tiny_lm):
    torch.manual_seed(0)
    network = load_sequence_classifier(str(tiny_lm))
    whole, model = (HarmClassifier(network, "mean_response", lengths).eval() for lengths in ((), (2,)))
    windows = [Window([5, 6, 7, 8, 9], 1), Window([8, 6], 1), Window([9, 5, 6, 7], 2)]
    with torch.inference_mode():
        batch = pad_windows(windows, 2)
        logits = model(**batch).logits[:, 0]
        tokens = model.score_tokens(batch["input_ids"], batch["attention_mask"])
        mean = whole(**batch).logits[:, 0]
        alone = torch.cat([model(**pad_windows([window], 2)).logits[:, 0] for window in windows])
    torch.testing.assert_close(logits, alone)
    torch.testing.assert_close(mean[0], tokens[0, 1:5].mean())
    assert logits[0] == pytest.approx(max(tokens[0, at : at + 2].mean().item() for at in (1, 2, 3)), abs=1e-5)
    assert logits[1] == pytest.approx(mean[1].item(), abs=1e-6)
    assert (logits >= mean - 1e-6).all()


def test_a_checkpoint_with_stretches_is_loaded_with_them(tiny_lm, tmp_path):
    build_detector_adapter(tmp_path / "plain", tiny_lm, pooling="mean_response")
    build_detector_adapter(
        tmp_path / "stretches", tiny_lm, pooling="mean_response", stretches=(4,), stretch_margin=0.25
    )
    text = "First this and then that, and at last all of it together once more."
    plain, stretched = (HarmDetector.from_pretrained(tmp_path / name) for name in ("plain", "stretches"))
    assert (stretched.classifier.stretches, stretched.classifier.margin) == ((4,), 0.25)
    assert stretched.score([text])[0] > plain.score([text])[0]
    assert stretched.score(["So."])[0] == pytest.approx(plain.score(["So."])[0], abs=1e-6)
