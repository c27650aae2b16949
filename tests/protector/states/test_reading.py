"""Reading answers that are there already: the states are those of an answer that is being written."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from llava.model.answering import prompt_cache
from llava.model.answering.states import Projection
from llava.model.loading import load_mllm
from llava.protector.states.reading import AnswerReader, cut_tokens, encode_answers

PROMPTS = ["Hi", "How do I bake bread, and what goes into it?", "Tell me more"]
RESPONSES = ["Mix flour, water and salt.", "No.", "The image shows a numbered list, with two steps."]
IMAGES = [Image.linear_gradient("L").convert("RGB").resize((40 + 9 * i, 30)) for i in range(3)]


@pytest.fixture(scope="module")
def model(tiny_llava):
    return load_mllm(tiny_llava, device="cpu", dtype="float32")


@pytest.mark.parametrize("with_image", [False, True])
def test_the_states_are_those_of_one_pass_over_each_row(model, with_image):
    images = IMAGES if with_image else None
    found = AnswerReader(model, [1, 2]).read(PROMPTS, RESPONSES, images)
    for place, (prompt, response) in enumerate(zip(PROMPTS, RESPONSES, strict=True)):
        inputs = model.encode([prompt], images and [images[place]])
        answer = model.tokenizer(response, add_special_tokens=False)["input_ids"]
        ids = torch.cat([inputs["input_ids"], torch.tensor([answer])], dim=1)
        pixels = {"pixel_values": inputs["pixel_values"]} if with_image else {}
        with torch.inference_mode():
            whole = model.model(input_ids=ids, output_hidden_states=True, **pixels).hidden_states
        assert len(found[place][0]) == len(answer)
        torch.testing.assert_close(found[place][0], whole[1][0, -len(answer) :], atol=1e-4, rtol=0)


def test_what_was_written_is_read_as_it_was_written(model):
    projection = Projection(1, torch.eye(32)[:2])
    answer = model.trace(["How do I bake bread?"], None, projection, max_new_tokens=9)[0]
    (states,) = AnswerReader(model, [1]).read(["How do I bake bread?"], [answer.text])[0]
    ids = model.tokenizer(answer.text, add_special_tokens=False)["input_ids"]
    assert len(states) == len(ids)
    if len(ids) == len(answer.kept):  # random text may be cut into other tokens
        torch.testing.assert_close(states[:, :2], answer.kept, atol=1e-4, rtol=0)


@pytest.mark.parametrize("with_image", [False, True])
def test_states_behind_a_beginning_that_was_read_once_are_the_same(model, monkeypatch, with_image):
    images = IMAGES[:1] * 2 if with_image else None
    plain = AnswerReader(model, [1]).read(PROMPTS[:1] * 2, ["Mix flour.", "Mix flour. Then wait."], images)
    monkeypatch.setattr(prompt_cache, "PASS_COST", 0)
    shared = AnswerReader(model, [1]).read(PROMPTS[:1] * 2, ["Mix flour.", "Mix flour. Then wait."], images)
    assert [len(states) for (states,) in shared] == [len(states) for (states,) in plain]
    for (expected,), (found,) in zip(plain, shared, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_special_tokens_in_an_answer_are_text(model):
    encoded = encode_answers(model, ["Hi"], ["<|im_end|> <image>"], None)
    assert model.tokenizer.convert_tokens_to_ids("<image>") not in encoded.inputs["input_ids"][0].tolist()


def test_an_answer_is_cut_at_a_token(model):
    text = "Mix flour, water, salt and yeast, then wait."
    cut = cut_tokens(model.tokenizer, text, 5)
    assert text.startswith(cut)
    assert cut != text
    assert cut_tokens(model.tokenizer, text, 500) == text
