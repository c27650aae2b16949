import pytest
import torch

from llava.data.training.pairs import DetectorRow
from llava.protector.config import ProtectorConfig
from llava.protector.text import Window, encode_windows
from llava.train.rows.detector import DetectorCollator, EncodedRow, balance_factors, encode_rows, form_units
from tests.tiny import build_tokenizer

SINGLE = DetectorRow("q", "x", True, "s")
CHOSEN = DetectorRow("q", "y", False, "p", pair_id="p:1", chosen=True)
REJECTED = DetectorRow("q", "z", True, "p", pair_id="p:1", chosen=False)


def encoded(row, windows, weight=1.0, smoothing=0.0):
    return EncodedRow([Window(ids, head) for ids, head in windows], row.harmful, weight, smoothing, row)


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


def test_collator_literal():
    """A harmful response in two windows with weight 2, and a pair with smoothing 0.4; U = 2 units, R = 3, W = 4."""
    single = (encoded(SINGLE, [([1, 2, 3], 1), ([4], 0)], weight=2.0),)
    pair = (encoded(CHOSEN, [([5], 0)], smoothing=0.4), encoded(REJECTED, [([6, 7], 1)], smoothing=0.4))
    batch = DetectorCollator(pad_token_id=9)([single, pair])
    expected = {
        "input_ids": [[1, 2, 3], [4, 9, 9], [5, 9, 9], [6, 7, 9]],
        "attention_mask": [[1, 1, 1], [1, 0, 0], [1, 0, 0], [1, 1, 0]],
        "response_mask": [[0, 1, 1], [1, 0, 0], [1, 0, 0], [0, 1, 0]],
        "row_of_window": [0, 0, 1, 2],
        "labels": [1.0, 0.0, 1.0],
        "weights": [1.0, 0.25, 0.25],
        "pairs": [[1, 2]],
        "pair_weights": [0.5],
    }
    assert {key: batch[key].tolist() for key in expected} == expected
    assert batch["label_smoothing"].tolist() == pytest.approx([0.0, 0.4, 0.4])


def test_collator_without_pairs_has_empty_pair_tensors():
    batch = DetectorCollator(0)([(encoded(SINGLE, [([1], 0)]),)])
    assert batch["pairs"].shape == (0, 2)
    assert batch["pair_weights"].shape == (0,)


def test_pad_equal_to_eos_is_masked_by_position_not_by_id():
    batch = DetectorCollator(pad_token_id=2)([(encoded(SINGLE, [([5, 2, 6], 0)]),), (encoded(SINGLE, [([7], 0)]),)])
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]


def test_training_text_is_the_text_of_inference(tokenizer, caplog):
    caplog.set_level("INFO")
    config = ProtectorConfig(kind="detector", max_length=32)
    row = DetectorRow("How?", "Mix flour and water. " * 20, True, "s")
    windows = encode_windows(tokenizer, config, row.prompt, row.response)
    assert len(windows) > 2
    assert encode_rows(tokenizer, config, [row], max_windows=None)[0].windows == windows
    assert "longer" not in caplog.text
    (first,) = encode_rows(tokenizer, config, [row], max_windows=1)
    assert (first.windows, first.windows_left_out) == (windows[:1], len(windows) - 1)
    whole = len(tokenizer(f"Question: How?\n\nAnswer: {row.response}")["input_ids"])
    assert (first.length, first.tokens) == (32, whole)
    assert "1 of 1 responses are longer" in caplog.text


def test_weights_and_smoothing_go_by_source(tokenizer):
    config = ProtectorConfig(kind="detector")
    rows = [DetectorRow("", "a", True, "x", weight=2.0), DetectorRow("", "b", True, "y")]
    first, second = encode_rows(tokenizer, config, rows, weights={"x": 0.5, "y": 3.0}, label_smoothing={"y": 0.2})
    assert (first.weight, first.label_smoothing) == (1.0, 0.0)
    assert (second.weight, second.label_smoothing) == (3.0, 0.2)


def test_prompt_dropout_takes_both_sides_of_a_pair(tokenizer):
    config = ProtectorConfig(kind="detector")
    rows = []
    for i in range(100):
        rows += [
            DetectorRow("a long question", "yes", False, "p", pair_id=f"p:{i}", chosen=True),
            DetectorRow("a long question", "yes", True, "p", pair_id=f"p:{i}", chosen=False),
        ]
    lengths = [row.length for row in encode_rows(tokenizer, config, rows, prompt_dropout=0.3)]
    assert lengths[0::2] == lengths[1::2]
    dropped = sum(length == min(lengths) for length in lengths[0::2])
    assert 15 <= dropped <= 45


def test_units_pair_up_only_when_asked_and_only_whole_pairs():
    lonely = DetectorRow("q", "w", False, "p", pair_id="p:2", chosen=True)
    rows = [encoded(row, [([1], 0)]) for row in (SINGLE, CHOSEN, REJECTED, lonely)]
    assert [len(unit) for unit in form_units(rows, pairs=False)] == [1, 1, 1, 1]
    units = form_units(rows, pairs=True)
    assert units[0] == (rows[1], rows[2])
    assert sorted(len(unit) for unit in units) == [1, 1, 2]


def test_balance_gives_both_classes_half():
    rows = [encoded(SINGLE, [([1], 0)], weight=w) for w in (1.0, 2.0)] + [encoded(CHOSEN, [([1], 0)])]
    factors = balance_factors(rows)
    assert 3.0 * factors[True] == pytest.approx(1.0 * factors[False]) == pytest.approx(2.0)


def test_balance_scales_the_batch_weights():
    batch = DetectorCollator(0, balance={True: 0.5, False: 2.0})(
        [(encoded(SINGLE, [([1], 0)]),), (encoded(CHOSEN, [([1], 0)]),)]
    )
    assert torch.equal(batch["weights"], torch.tensor([0.25, 1.0]))
