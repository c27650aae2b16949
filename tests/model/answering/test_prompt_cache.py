"""The cache of a batch that decodes: what all prompts begin with is read once, and tokens are appended in place."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoModelForCausalLM, GenerationConfig
from transformers.cache_utils import DynamicLayer

from llava.model.answering import prompt_cache
from llava.model.answering.decoding import decode_rows
from llava.model.answering.prompt_cache import (
    CACHE,
    LEAST_GROWTH,
    GrowingLayer,
    add_cache,
    find_shared_beginning,
    make_cache,
)
from llava.model.loading import load_mllm
from llava.model.views import view_model

PAD = 0
IMAGES = [Image.linear_gradient("L").convert("RGB").resize((50, 30)), Image.new("RGB", (60, 60), "red")]


@pytest.fixture(scope="module")
def model(tiny_lm) -> Any:
    model = AutoModelForCausalLM.from_pretrained(tiny_lm, dtype=torch.float32).eval()
    model.generation_config = GenerationConfig(pad_token_id=PAD)
    return model


@pytest.fixture
def cheap_passes(monkeypatch):
    monkeypatch.setattr(prompt_cache, "PASS_COST", 0)


def encode(rows: list[list[int]]) -> dict[str, torch.Tensor]:
    width = max(map(len, rows))
    ids = torch.tensor([[PAD] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return {"input_ids": ids, "attention_mask": mask}


def write(model: Any, rows: list[list[int]], length: int = 7) -> list[list[int]]:
    with torch.inference_mode():
        return decode_rows(model, encode(rows), torch.full((len(rows),), length), ends=[])


STEPS = st.lists(st.tuples(st.sampled_from(["add", "crop", "select", "repeat"]), st.integers(1, 40)), max_size=12)


@given(steps=STEPS)
@settings(max_examples=60, deadline=None)
def test_a_growing_layer_holds_what_a_plain_one_holds(steps):
    plain, growing = DynamicLayer(), GrowingLayer()
    draw = torch.Generator().manual_seed(0)
    for what, number in [("add", 3), *steps]:
        rows = plain.keys.shape[0] if plain.is_initialized else 2
        if what == "add":
            states = torch.randn(2, rows, 2, number, 4, generator=draw)
            expected, found = plain.update(*states), growing.update(*states)
            assert torch.equal(expected[0], found[0])
            assert torch.equal(expected[1], found[1])
        elif what == "crop":
            cut = -min(number, plain.get_seq_length() - 1)
            plain.crop(cut)
            growing.crop(cut)
        elif what == "select":
            chosen = torch.randint(rows, (max(1, number % (rows + 1)),), generator=draw)
            plain.batch_select_indices(chosen)
            growing.batch_select_indices(chosen)
        elif rows < 8:
            plain.batch_repeat_interleave(2)
            growing.batch_repeat_interleave(2)
        assert growing.get_seq_length() == plain.get_seq_length()
        assert torch.equal(growing.keys, plain.keys)
        assert torch.equal(growing.values, plain.values)


def test_a_token_is_written_behind_the_others_and_nothing_is_copied():
    layer = GrowingLayer()
    keys, _ = layer.update(torch.ones(2, 1, 3, 4), torch.ones(2, 1, 3, 4))
    places = {keys.data_ptr()}
    for _ in range(LEAST_GROWTH):
        keys, _ = layer.update(torch.zeros(2, 1, 1, 4), torch.zeros(2, 1, 1, 4))
        places.add(keys.data_ptr())
    assert len(places) == 1
    keys, _ = layer.update(torch.zeros(2, 1, 1, 4), torch.zeros(2, 1, 1, 4))
    assert keys.data_ptr() not in places


def test_rows_that_leave_give_their_memory_back():
    layer = GrowingLayer()
    layer.update(torch.ones(4, 1, 30, 4), torch.ones(4, 1, 30, 4))
    memory = weakref.ref(layer.keys._base)  # what the keys are a part of
    layer.batch_select_indices(torch.tensor([2]))
    assert memory() is None
    assert layer.keys.shape == (1, 1, 30, 4)


def test_two_batches_that_begin_alike_do_not_write_into_one_another():
    first = GrowingLayer()
    first.update(torch.ones(1, 1, 3, 4), torch.ones(1, 1, 3, 4))
    second = GrowingLayer()
    second.update(first.keys, first.values)
    first.update(torch.zeros(1, 1, 1, 4), torch.zeros(1, 1, 1, 4))
    second.update(torch.full((1, 1, 1, 4), 2.0), torch.full((1, 1, 1, 4), 2.0))
    assert first.keys[0, 0, -1].tolist() == [0] * 4
    assert second.keys[0, 0, -1].tolist() == [2] * 4


@given(beginning=st.integers(1, 20), rests=st.lists(st.integers(1, 6), min_size=2, max_size=5))
@settings(max_examples=25, deadline=None)
def test_rows_that_begin_alike_go_on_as_alone(model, beginning, rests):
    draw = torch.Generator().manual_seed(beginning)
    start = torch.randint(5, 90, (beginning,), generator=draw).tolist()
    rows = [start + torch.randint(5, 90, (rest,), generator=draw).tolist() for rest in rests]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prompt_cache, "PASS_COST", 0)
        assert find_shared_beginning(model, encode(rows)) >= min(beginning, min(map(len, rows)) - 1)
        together = write(model, rows)
    assert together == [write(model, [row])[0] for row in rows]


def test_what_all_rows_begin_with_is_read_once(model, cheap_passes):
    rows = [[7] * 30 + [9], [7] * 30 + [8, 9, 10]]
    read: list[tuple[int, ...]] = []
    view = view_model(model)
    view.register_forward_pre_hook(
        lambda module, args, kwargs: read.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    with torch.inference_mode():
        state = add_cache(view, encode(rows))
    assert read == [(1, 30)]
    assert state[CACHE].get_seq_length() == 30
    assert state["input_ids"].shape == (2, 33)
    assert state["attention_mask"].tolist() == [[1] * 30 + [0, 0, 1], [1] * 33]
    assert state["input_ids"][0, [*range(30), 32]].tolist() == rows[0]


def test_a_pass_is_not_made_for_a_few_tokens_one_row_or_the_last_token(model, monkeypatch):
    assert find_shared_beginning(model, encode([[7] * 30 + [9]] * 2)) == 0  # 30 tokens saved, and a pass costs 32
    assert find_shared_beginning(model, encode([[7] * 30 + [9]] * 4)) == 30
    monkeypatch.setattr(prompt_cache, "PASS_COST", 0)
    assert find_shared_beginning(model, encode([[7] * 30])) == 0
    assert find_shared_beginning(model, encode([[7] * 30] * 2)) == 29
    assert find_shared_beginning(model, encode([[7] * 30] * 2), [4, 9]) == 21
    assert find_shared_beginning(model, encode([[6, 7], [7, 7]])) == 0


@pytest.mark.parametrize(
    "change",
    [{"layer_types": ["full_attention", "sliding_attention"]}, {"sliding_window": 16}],
    ids=["layers", "window"],
)
def test_layers_that_see_a_window_read_every_row_whole(model, monkeypatch, cheap_passes, change):
    for name, value in change.items():
        monkeypatch.setattr(model.config, name, value, raising=False)
    assert find_shared_beginning(model, encode([[7] * 30 + [9]] * 4)) == 0


def test_only_plain_layers_grow(tiny_lm):
    config = AutoModelForCausalLM.from_pretrained(tiny_lm)
    cache = make_cache(config)
    assert cache.layers
    assert {type(layer) for layer in cache.layers} == {GrowingLayer}


def test_pictures_are_read_behind_what_all_rows_begin_with(tiny_llava, cheap_passes):
    model = load_mllm(tiny_llava, device="cpu", dtype="float32")
    prompts = ["How do I bake bread?", "And what else is there to see?"]
    inputs = model.encode(prompts, IMAGES)
    shared = find_shared_beginning(model.model, inputs)
    assert shared > 0
    beginning = inputs["input_ids"][inputs["attention_mask"].sum(dim=1).argmax(), :shared]
    assert model.model.config.image_token_id not in beginning.tolist()
    together = model.generate(prompts, IMAGES, max_new_tokens=8)
    assert together == [model.generate([p], [i], max_new_tokens=8)[0] for p, i in zip(prompts, IMAGES, strict=True)]
