"""States of written tokens: those that one pass over the final text gives, whatever the batch did on the way."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from PIL import Image
from torch import nn

from llava.errors import InputError
from llava.model.answering.decoding import decode_rows
from llava.model.answering.sampling import GumbelNoise
from llava.model.answering.states import Projection, StateTrace, find_layers, hook_layer, read_layers
from llava.model.loading import load_mllm
from llava.model.views import view_model
from tests.model.families import BUILDERS

PICTURES = [Image.linear_gradient("L").convert("RGB").resize(size) for size in ((50, 30), (30, 90))]
ROOM = [2, 4, 5, 9, 12, 12]
LAYER = 1


@pytest.fixture(scope="module")
def model(tiny_llava):
    return load_mllm(tiny_llava, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def projection():
    directions = torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
    return Projection(LAYER, directions)


def write(model, projection, rows: list[int], with_image: bool, room: list[int] = ROOM):
    """Sample answers of different lengths, so that rows leave the batch; return tokens and what was kept of each."""
    images = [PICTURES[row % 2] for row in rows] if with_image else None
    inputs = model.encode([f"How do I bake {'very ' * row}good bread?" for row in rows], images)
    trace = StateTrace(projection, len(rows))
    with torch.inference_mode():
        tokens = decode_rows(
            model.model,
            inputs,
            torch.tensor([room[row] for row in rows]),
            ends=[],
            processor=GumbelNoise(2.0, rows),
            trace=trace,
        )
    return inputs, tokens, [trace.of_tokens(place, len(tokens[place])) for place in range(len(rows))]


def read_whole(model, inputs, place: int, tokens: list[int], projection) -> torch.Tensor:
    """Return the same from one pass of the model as it is over one row: prompt without padding, and answer."""
    real = inputs["attention_mask"][place].bool()
    ids = torch.cat([inputs["input_ids"][place][real], torch.tensor(tokens)])[None]
    pixels = {"pixel_values": inputs["pixel_values"][place : place + 1]} if "pixel_values" in inputs else {}
    with torch.inference_mode():
        output = model.model(input_ids=ids, output_hidden_states=True, **pixels)
    return output.hidden_states[projection.layer][0, -len(tokens) :] @ projection.directions.T


@pytest.mark.parametrize("room", [[11, 11, 11, 12], [1] * 5, [12, 11, 12, 12, 12], [3, 7, 7, 8, 8, 8]])
def test_the_last_token_is_read_whenever_its_neighbours_end(model, projection, room):
    inputs, tokens, kept = write(model, projection, list(range(len(room))), False, room)
    assert [len(row) for row in tokens] == room
    for place, row in enumerate(tokens):
        torch.testing.assert_close(kept[place], read_whole(model, inputs, place, row, projection), atol=1e-4, rtol=0)


@pytest.mark.parametrize("with_image", [False, True])
def test_what_is_kept_is_what_one_pass_over_the_text_gives(model, projection, with_image):
    inputs, tokens, kept = write(model, projection, list(range(6)), with_image)
    assert [len(row) for row in tokens] == ROOM
    for place, row in enumerate(tokens):
        torch.testing.assert_close(kept[place], read_whole(model, inputs, place, row, projection), atol=1e-4, rtol=0)


def test_a_trace_changes_no_answer(model, projection):
    prompts = ["How do I bake bread?", "Hi"]
    plain = model.generate(prompts, [PICTURES[0], None], max_new_tokens=7)
    traced = model.trace(prompts, [PICTURES[0], None], projection, max_new_tokens=7)
    assert [answer.text for answer in traced] == plain
    assert all(answer.kept is not None and len(answer.kept) <= 7 for answer in traced)


def test_the_last_token_is_read_without_the_layers_above(model, projection, monkeypatch):
    """Of the pass that reads the last token nothing runs above the layer that is looked at."""
    counts = {1: 0, 2: 0}

    def attach(trace, view, longest, original=StateTrace.attach):
        original(trace, view, longest)
        for layer in counts:
            hook_layer(view, layer, lambda states, layer=layer: counts.update({layer: counts[layer] + 1}))

    monkeypatch.setattr(StateTrace, "attach", attach)
    _, tokens, kept = write(model, projection, [5], False)
    assert len(tokens[0]) == len(kept[0]) == 12
    assert counts[2] == 12  # the prompt and eleven tokens


def test_threads_do_not_see_each_other(model, projection):
    alone = {row: write(model, projection, [row], False)[2][0] for row in range(6)}

    def run(row: int) -> torch.Tensor:
        return write(model, projection, [row], False)[2][0]

    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(run, [row for row in range(6) for _ in range(3)]))
    for number, kept in enumerate(together):
        torch.testing.assert_close(kept, alone[number // 3])


def test_the_shared_model_keeps_no_hook(model, projection):
    # Some versions of transformers put hooks of their own on a model.
    before = [len(module._forward_hooks) for module in model.model.modules()]
    write(model, projection, [0, 1], False)
    assert [len(module._forward_hooks) for module in model.model.modules()] == before


def test_what_was_not_seen_is_not_made_up(projection):
    trace = StateTrace(projection, 2)
    assert trace.of_tokens(0, 1) is None
    trace._take(torch.zeros(2, 3, 32))
    trace._take(torch.zeros(2, 1, 32))
    trace.close_round([0, 1], [2, 1])
    assert len(trace.of_tokens(0, 1)) == 1
    assert trace.of_tokens(1, 1) is None


@pytest.mark.parametrize("family", sorted(set(BUILDERS) - {"instructblip", "idefics3"}))
def test_other_families_are_followed_too(family, tmp_path):
    model = load_mllm(BUILDERS[family](tmp_path / family), device="cpu", dtype="float32")
    width = model.model.config.get_text_config(decoder=True).hidden_size
    projection = Projection(1, torch.eye(width)[:3])
    prompts = ["Hi there", "How do I bake bread?"]
    answers = model.trace(prompts, PICTURES, projection, max_new_tokens=5)
    assert [answer.text for answer in answers] == model.generate(prompts, PICTURES, max_new_tokens=5)
    alone = [model.trace([p], [i], projection, max_new_tokens=5)[0] for p, i in zip(prompts, PICTURES, strict=True)]
    for one, other in zip(answers, alone, strict=True):
        torch.testing.assert_close(one.kept, other.kept, atol=1e-4, rtol=0)


def test_read_layers_stops_below_what_nobody_needs(model):
    inputs = model.encode(["Hi", "How do I bake bread?"], None)
    view = view_model(model.model)
    find_layers(view)[1].register_forward_hook(lambda *_: pytest.fail("the second layer ran"))
    (states,) = read_layers(view, inputs, [1])
    with torch.inference_mode():
        whole = model.model(input_ids=inputs["input_ids"][1:], output_hidden_states=True).hidden_states[1]
    torch.testing.assert_close(states[1], whole[0], atol=1e-4, rtol=0)


def test_a_layer_that_is_not_there(model):
    with pytest.raises(InputError, match="2 layers, and no layer 3"):
        hook_layer(view_model(model.model), 3, lambda states: None)


def test_layers_that_cannot_be_told():
    class Odd(nn.Module):
        class config:  # noqa: N801 - as transformers calls it
            model_type = "odd"

            @staticmethod
            def get_text_config(decoder):
                return type("Text", (), {"num_hidden_layers": 2})

    with pytest.raises(InputError, match="layers of a odd model"):
        find_layers(Odd())
