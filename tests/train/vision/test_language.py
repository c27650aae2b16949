"""The second stage: slots learn through a frozen language model."""

from __future__ import annotations

import itertools
import random

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlavaConfig, LlavaForConditionalGeneration

from llava.data.pictures import Picture, Vocabulary, find_typefaces
from llava.data.pictures.scenes import make_captioned, make_page
from llava.model.embedded.reading_tower import ReadingTowerConfig
from llava.model.embedded.stack import CHAT_TEMPLATE
from llava.train.vision.language import Speaker, ask_pictures, said_tokens, set_projector, train_slots
from llava.train.vision.targets import TargetBuilder, TokenClasses
from tests.model.embedded.test_reading_tower import BACKBONE

WORDS = Vocabulary(("bread", "water"))


@pytest.fixture
def speaker(tiny_lm):
    torch.manual_seed(0)
    language_model = AutoModelForCausalLM.from_pretrained(tiny_lm, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(tiny_lm)
    tokenizer.chat_template = CHAT_TEMPLATE
    return Speaker(language_model, tokenizer, num_slots=9, num_prefix_slots=2)


def test_the_loss_is_that_of_the_whole_llava(speaker):
    """A tower that is sure of its tokens gives, through `LlavaForConditionalGeneration`, the same loss."""
    tokenizer, embeddings = speaker.tokenizer, speaker.language_model.get_input_embeddings().weight
    lexicon = [40, 41, 42, 43]
    vision = ReadingTowerConfig(BACKBONE, num_slots=9, num_prefix_slots=2, lexicon_size=4)
    config = LlavaConfig(
        vision_config=vision,
        text_config=speaker.language_model.config,
        image_token_id=tokenizer.unk_token_id,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        projector_hidden_act="linear",
        tie_word_embeddings=False,
    )
    llava = LlavaForConditionalGeneration(config).eval()
    set_projector(llava.model.multi_modal_projector, embeddings[lexicon], speaker.slots)
    llava.model.language_model.load_state_dict(speaker.language_model.model.state_dict())
    llava.lm_head.load_state_dict(speaker.language_model.lm_head.state_dict())
    weights = torch.zeros(1, 9, 13)
    for position, column in enumerate([4, 5, 2, 0, 8, 9, 10, 11, 12]):
        weights[0, position, column] = 1.0
    text = (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\n<image>\nHow many?<|im_end|>\n<|im_start|>assistant\n"
    )
    before, after = (tokenizer(part, add_special_tokens=False)["input_ids"] for part in text.split("<image>"))
    answer = tokenizer("two", add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
    ids = torch.tensor([[*before, *[tokenizer.unk_token_id] * 9, *after, *answer]])
    labels = torch.full_like(ids, -100)
    labels[0, -len(answer) :] = torch.tensor(answer)
    with torch.no_grad():
        shown = llava.get_input_embeddings()(ids)
        shown[ids == tokenizer.unk_token_id] = llava.model.multi_modal_projector(weights)[0]
        expected = llava(inputs_embeds=shown, labels=labels).loss
        loss = speaker.loss([[42, 40]], ["How many?"], ["two"])
        beside = speaker.loss([[42, 40], [41] * 30], ["How many?", "Which are red?"], ["two", "a"])
    torch.testing.assert_close(loss[0], expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(beside[0], expected, atol=1e-4, rtol=0)


def test_only_the_slots_move(speaker):
    frozen = {name: weight.clone() for name, weight in speaker.language_model.named_parameters()}
    slots = speaker.slots.detach().clone()
    assert torch.equal(slots[0], frozen["model.embed_tokens.weight"][speaker._ids('text: "')[-2]])
    rng, faces = random.Random(0), find_typefaces(["Aileron"])
    pictures = ((make_captioned(rng, WORDS, faces), [40, 41]) for _ in itertools.count())
    train_slots(speaker, ask_pictures(pictures, rng), steps=3, batch_size=2, learning_rate=1e-2, logging_steps=1)
    assert all(torch.equal(frozen[name], weight) for name, weight in speaker.language_model.named_parameters())
    moved = (speaker.slots != slots).any(dim=1)
    assert moved[[0, 1, 4, 5, 6, 7, 8]].all()
    assert not moved[[2, 3]].any(), "two tokens took the first two places behind the prefix"


def test_training_lowers_the_loss(speaker):
    picture = Picture(make_captioned(random.Random(0), WORDS, find_typefaces(["Aileron"])).image)
    picture.groups, picture.captions = [(1, "red", "star")], ["one red star"]
    questions, answers = ["Which?", "What?"], ["red", "star"]
    with torch.no_grad():
        first = speaker.loss([[40], [40]], questions, answers).mean()
    optimiser = torch.optim.Adam([speaker.slots], lr=0.05)
    for _ in range(40):
        loss = speaker.loss([[40], [40]], questions, answers).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < first - 0.01


def test_pictures_come_with_the_tokens_that_are_said(speaker):
    classes = TokenClasses(speaker.tokenizer, WORDS)
    rng, faces = random.Random(2), find_typefaces(["Aileron"])
    pictures = [make_captioned(rng, WORDS, faces) for _ in range(8)] + [make_page(rng, WORDS, faces)]
    found = list(said_tokens(pictures, TargetBuilder(classes, side=160, grid=16)))
    assert len(found) >= 4
    for picture, tokens in found:
        said = speaker.tokenizer.decode(tokens).split()
        first = 2 * len(picture.things)  # a colour and a form for each
        assert sorted(said[:first]) == sorted(" ".join(thing.name for thing in picture.things).split())
        assert said[first:] == picture.text.split()
