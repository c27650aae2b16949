"""Decoding in batches whose rows end at different times: the same answers, and ended rows cost nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, GenerationConfig

from llava.model.answering.decoding import KEEP_SHARE, can_prune, decode_rows, drop_contradictions
from llava.model.answering.sampling import GumbelNoise

PAD = 0
LONGEST = 24


@pytest.fixture(scope="module")
def model(tiny_lm) -> Any:
    model = AutoModelForCausalLM.from_pretrained(tiny_lm, dtype=torch.float32).eval()
    model.generation_config = GenerationConfig(pad_token_id=PAD)
    return model


def encode(rows: list[list[int]]) -> dict[str, torch.Tensor]:
    width = max(map(len, rows))
    ids = torch.tensor([[PAD] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return {"input_ids": ids, "attention_mask": mask}


def write_alone(model: Any, row: list[int], length: int) -> list[int]:
    """Return what plain `generate` writes for one row, with no end token."""
    plan = GenerationConfig(max_new_tokens=length, do_sample=False, pad_token_id=PAD)
    with torch.inference_mode():
        return model.generate(**encode([row]), generation_config=plan)[0, len(row) :].tolist()


def cut(tokens: list[int], ends: list[int]) -> list[int]:
    """Return the tokens up to and with the first end token."""
    return next((tokens[: i + 1] for i, token in enumerate(tokens) if token in ends), tokens)


def decode(model: Any, rows: list[list[int]], room: list[int], ends: list[int], **options: Any) -> list[list[int]]:
    with torch.inference_mode():
        return decode_rows(model, encode(rows), torch.tensor(room), ends=ends, **options)


def make_rows(count: int) -> list[list[int]]:
    draw = torch.Generator().manual_seed(count)
    return [torch.randint(5, 90, (3 + i % 4,), generator=draw).tolist() for i in range(count)]


@given(room=st.lists(st.integers(1, LONGEST), min_size=1, max_size=9), data=st.data())
@settings(max_examples=25, deadline=None)
def test_rows_end_where_they_end_alone(model, room, data):
    rows = make_rows(len(room))
    alone = [write_alone(model, row, limit) for row, limit in zip(rows, room, strict=True)]
    spoken = sorted({token for tokens in alone for token in tokens})
    ends = data.draw(st.lists(st.sampled_from(spoken), max_size=2, unique=True))
    assert decode(model, rows, room, ends) == [cut(tokens, ends) for tokens in alone]


def test_rows_that_have_ended_are_no_longer_computed(model):
    room = [2, 2, 4, 4, 6, 8, 20, 24]
    rows, steps = make_rows(len(room)), []
    hook = model.register_forward_hook(lambda *call: steps.append(call[2].logits.shape[0]))
    try:
        found = decode(model, rows, room, [])
    finally:
        hook.remove()
    assert [len(tokens) for tokens in found] == room
    assert len(steps) == max(room)
    # Fewer than four rows stay together: cutting further would save nothing.
    assert steps[:10] == [8, 8, 6, 6, 4, 4, 3, 3, 3, 3]
    assert steps[10:] == [3] * 14
    assert KEEP_SHARE * 8 == 6


def test_other_reasons_to_end(model):
    rows, room = make_rows(6), [LONGEST] * 6
    alone = [write_alone(model, row, LONGEST) for row in rows]
    start = encode(rows)["input_ids"].shape[1]
    stop_at = [3, 5, 5, 9, 9, LONGEST]
    marks = torch.tensor(stop_at)
    rows_of = encode(rows)["input_ids"][:, -1]  # tells which row a row of the shrunken batch is
    assert len(set(rows_of.tolist())) == len(rows)

    def has_ended(ids: torch.Tensor) -> torch.Tensor:
        which = (ids[:, start - 1, None] == rows_of).int().argmax(dim=1)
        return ids.shape[1] - start >= marks[which]

    found = decode(model, rows, room, [], ends_row=[has_ended])
    assert found == [tokens[:limit] for tokens, limit in zip(alone, stop_at, strict=True)]


def test_sampled_rows_keep_their_own_noise(model):
    room = [2, 3, 20, 5, 24, 20, 2, 9]
    rows, seeds = make_rows(len(room)), [5, 6, 7, 8, 9, 10, 11, 12]
    together = decode(model, rows, room, [], processor=GumbelNoise(1.5, seeds))
    alone = [
        decode(model, [row], [limit], [], processor=GumbelNoise(1.5, [seed]))[0]
        for row, limit, seed in zip(rows, room, seeds, strict=True)
    ]
    assert together == alone
    assert together != decode(model, rows, room, [])


def test_models_that_keep_more_than_a_cache_are_left_whole(model):
    inputs = encode(make_rows(8))
    assert can_prune(model, inputs, {})
    assert not can_prune(model, {**inputs, "cross_attention_mask": inputs["attention_mask"]}, {})
    assert not can_prune(model, inputs, {"tokenizer": object()})
    steps = []
    hook = model.register_forward_hook(lambda *call: steps.append(call[2].logits.shape[0]))
    whole = {**inputs, "position_ids": (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)}
    room = torch.tensor([1, 1, 1, 1, 1, 1, 1, 9])
    try:
        with torch.inference_mode():
            found = decode_rows(model, whole, room, ends=[])
    finally:
        hook.remove()
    assert steps == [8] * 9
    assert found[7] == decode(model, make_rows(8), room.tolist(), [])[7]


def test_recurrent_layers_are_left_whole(model, monkeypatch):
    monkeypatch.setattr(model.config, "layer_types", ["full_attention", "linear_attention"], raising=False)
    assert not can_prune(model, encode(make_rows(8)), {})


def test_own_defaults_count_instead_of_the_models(model):
    stored = model.generation_config
    expected = decode(model, make_rows(3), [6] * 3, [])
    model.generation_config = GenerationConfig(suppress_tokens=[row[0] for row in expected], pad_token_id=PAD)
    try:
        assert decode(model, make_rows(3), [6] * 3, []) != expected
        assert decode(model, make_rows(3), [6] * 3, [], defaults=stored) == expected
    finally:
        model.generation_config = stored


def test_decoding_leaves_the_model_as_it_was(model):
    before = [(name, vars(module).keys(), vars(module).copy()) for name, module in model.named_modules()]
    decode(model, make_rows(8), [2, 3, 20, 5, 24, 20, 2, 9], [], defaults=GenerationConfig(pad_token_id=PAD))
    for (name, keys, values), (_, module) in zip(before, model.named_modules(), strict=True):
        assert vars(module).keys() == keys, name
        assert all(vars(module)[key] is value for key, value in values.items()), name


def test_decoding_defaults_that_contradict_one_another_leave_the_special_tokens(model, tmp_path):
    stored = model.generation_config
    try:
        for sampling in (True, False):
            odd = GenerationConfig(eos_token_id=[2, 3], pad_token_id=1, do_sample=sampling, temperature=0.2)
            model.generation_config = odd
            drop_contradictions(model)
            assert (model.generation_config is odd) is sampling
            assert (model.generation_config.eos_token_id, model.generation_config.pad_token_id) == ([2, 3], 1)
            model.save_pretrained(tmp_path / str(sampling))
    finally:
        model.generation_config = stored
