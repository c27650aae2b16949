"""Pooled states on disk: what they are, and that a pass which was interrupted goes on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from llava.data.training.answers import AnswerRow
from llava.model.loading import load_mllm
from llava.protector.states.reading import AnswerReader
from llava.train.states import cache
from llava.train.states.cache import LAST, WHOLE, PooledStates, form_batches, pool_states

ROWS = [
    AnswerRow("Hi", "Mix flour, water and salt.", False, "a"),
    AnswerRow("How do I bake bread?", "No.", True, "a"),
    AnswerRow("What is it?", "A numbered list.", False, "a", image="list.png"),
]
IMAGE = Image.linear_gradient("L").convert("RGB").resize((40, 30))


@pytest.fixture(scope="module")
def model(tiny_llava):
    return load_mllm(tiny_llava, device="cpu", dtype="float32")


def open_states(folder, rows=ROWS, **changes):
    values = {"layers": (1, 2), "width": 32, "longest": 64, "key": "tiny", **changes}
    return PooledStates(folder, rows, *values.values())


def test_they_are_means_and_last_states(tmp_path, model):
    pooled = open_states(tmp_path)
    pooled.fill(model, lambda path: IMAGE)
    (first, second) = AnswerReader(model, [1, 2]).read([ROWS[2].prompt], [ROWS[2].response], [IMAGE])[0]
    torch.testing.assert_close(pooled.read(1)[2], first.mean(dim=0), atol=2e-3, rtol=2e-3)
    torch.testing.assert_close(pooled.read(2, WHOLE)[2], second.mean(dim=0), atol=2e-3, rtol=2e-3)
    torch.testing.assert_close(pooled.read(2, LAST)[2], second[-1], atol=2e-3, rtol=2e-3)


def test_a_pass_that_was_interrupted_goes_on(tmp_path, model, monkeypatch):
    monkeypatch.setattr(cache, "SAVE_EVERY", 1)

    def fail(path):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_states(tmp_path).fill(model, fail)  # after the batch without images
    pooled = open_states(tmp_path)
    done = pooled.values[:2].copy()
    assert np.abs(done).sum() > 0
    pooled.values[:2] = 7
    opened = []
    pooled.fill(model, lambda path: opened.append(path) or IMAGE)
    assert opened == ["list.png"]
    assert (pooled.values[:2] == 7).all()
    again = open_states(tmp_path)
    again.fill(model, fail)  # nothing is left
    assert (np.asarray(again.values) == np.asarray(pooled.values)).all()


@pytest.mark.parametrize("change", [{"layers": (1,)}, {"longest": 8}, {"key": "other"}, {"rows": ROWS[:2]}])
def test_other_states_begin_anew(tmp_path, model, change):
    open_states(tmp_path, ROWS[:2]).fill(model, lambda path: IMAGE)
    changed = {"rows": ROWS[:2], **change} if "rows" not in change else {"rows": ROWS[:1]}
    pooled = open_states(tmp_path, **changed)
    assert not np.asarray(pooled.values).any()


def test_batches_are_of_like_length_and_kind():
    answers = ["x" * 400, "x" * 40, "x" * 400]
    assert form_batches(ROWS, answers, tokens=120) == [[0], [1], [2]]
    assert form_batches(ROWS, answers, tokens=4000) == [[0, 1], [2]]


def test_an_answer_without_a_token_has_no_state():
    assert pool_states(torch.zeros(0, 4)).isnan().all()
