"""Slots learn to answer about what an image says."""

from __future__ import annotations

import itertools
import json
import random

import pytest
import torch
from safetensors.torch import load_file

from llava.data.pictures import SHAPES, Vocabulary, find_typefaces
from llava.data.pictures.scenes import make_captioned, make_shapes
from llava.data.pictures.topics import Topic
from llava.data.typography import render_typo
from llava.errors import InputError
from llava.model.embedded import stack
from llava.model.embedded.reading_tower import ReadingTowerConfig
from llava.model.embedded.stack import VISION_DESCRIPTION, VISION_WEIGHTS
from llava.model.loading import load_mllm
from llava.train.vision.answers import (
    LEXICON,
    PROJECTOR,
    AnswerArguments,
    build_lessons,
    main,
    mix_lessons,
    read_slots,
    write_slots,
)
from llava.train.vision.language import Lesson, ask_pictures, said_tokens, train_slots
from llava.train.vision.targets import TargetBuilder, TokenClasses
from tests.train.vision.test_language import WORDS, speaker  # noqa: F401 - a fixture

TOPICS = [
    Topic("bread water", "food", "What is this food?", "What is bread water?"),
    Topic("straße", "food", "What is this food?", "What is straße?"),
]


def test_lessons_show_what_the_tower_can_say(speaker):  # noqa: F811
    classes = TokenClasses(speaker.tokenizer, WORDS)
    lessons = build_lessons(TOPICS, [("It is wet.", False), ("A street.", True)], classes)
    assert [(lesson.question, lesson.answer, lesson.cut) for lesson in lessons] == [
        ("What is this food?", "It is wet.", False)
    ]
    assert speaker.tokenizer.decode(lessons[0].tokens).strip() == "bread water"


def test_lessons_are_mixed_with_reading(speaker):  # noqa: F811
    classes = TokenClasses(speaker.tokenizer, WORDS)
    rng = random.Random(0)
    typefaces = find_typefaces(["Aileron"], [])
    pictures = (make_captioned(rng, Vocabulary(("bread", "water")), typefaces) for _ in itertools.count())
    reading = ask_pictures(said_tokens(pictures, TargetBuilder(classes, 160, 10)), rng)
    lessons = [Lesson([1], f"q{number}", "a", "topic") for number in range(3)]
    drawn = list(itertools.islice(mix_lessons(lessons, reading, 0.5, random.Random(1)), 60))
    own = [lesson.question for lesson in drawn if lesson.tokens == [1]]
    assert 15 < len(own) < 45
    assert {*own[:3]} == {"q0", "q1", "q2"}


def test_an_answer_that_was_cut_off_teaches_no_end(speaker):  # noqa: F811
    whole, cut = (speaker.loss([[40]], ["What?"], ["two"], [flag]) for flag in (False, True))
    end = speaker.loss([[40]], ["What?"], [""], [False])
    assert whole.shape == cut.shape == (1,)
    assert not torch.equal(whole, cut)
    assert torch.isfinite(end).all()


def test_tuning_learns_the_lessons_and_touches_slots_alone(speaker):  # noqa: F811
    lesson = Lesson([40, 41], "What is this?", "a small house", "topic")
    before = {name: value.clone() for name, value in speaker.language_model.state_dict().items()}
    first = speaker.loss([lesson.tokens], [lesson.question], [lesson.answer]).item()
    lessons = itertools.repeat(lesson)
    train_slots(speaker, lessons, steps=40, batch_size=2, learning_rate=0.5, logging_steps=20)
    assert speaker.loss([lesson.tokens], [lesson.question], [lesson.answer]).item() < first - 0.01
    assert all(torch.equal(value, before[name]) for name, value in speaker.language_model.state_dict().items())


def test_no_output_folder_is_one_line(capsys):
    assert main([]) == 2
    assert "--output-dir is missing" in capsys.readouterr().err


def test_slots_are_read_and_written_by_sets():
    weights = {PROJECTOR: torch.arange(14.0).view(2, 7)}
    first, second = read_slots(weights, 3, 2)
    assert first.tolist() == [[3.0, 10.0], [4.0, 11.0]]
    assert second.tolist() == [[5.0, 12.0], [6.0, 13.0]]
    write_slots(weights, 3, [second, first])
    assert weights[PROJECTOR].tolist() == [[0, 1, 2, 5, 6, 3, 4], [7, 8, 9, 12, 13, 10, 11]]
    assert weights[PROJECTOR].dtype == torch.float16


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("read_share", 2.0, "--read-share"),
        ("read_mixture", "page:1,cats:2", "--read-mixture names cats; kinds are phrase"),
        ("read_mixture", "page", "--read-mixture has 'page'"),
    ],
)
def test_arguments_are_checked(name, value, message):
    with pytest.raises(InputError, match=message):
        AnswerArguments(**{name: value})


def test_names_of_the_shipped_weights_are_those_that_are_read():
    weights = load_file(VISION_WEIGHTS)
    config = json.loads(VISION_DESCRIPTION.read_text())["vision_config"]
    assert len(weights[LEXICON]) == config["lexicon_size"]
    sets = read_slots(weights, config["lexicon_size"], config["num_slots"])
    assert [slots.shape for slots in sets] == [(49, 576)] * ReadingTowerConfig(**config).num_slot_sets
    assert min(slots.norm(dim=1).min() for slots in sets) > 0


@pytest.mark.slow
def test_tuning_keeps_the_slots_of_shapes_and_the_stack_takes_what_it_writes(tmp_path, monkeypatch):
    out = tmp_path / "out"
    steps = ["--steps", "2", "--topics", "12", "--answer-tokens", "4", "--batch-size", "1"]
    assert main(["--output-dir", str(out), *steps]) == 0
    before, after = load_file(VISION_WEIGHTS), load_file(out / "model.safetensors")
    description = json.loads((out / "vision.json").read_text())
    tokens, number = len(before[LEXICON]), 49
    old, new = (read_slots(weights, tokens, number) for weights in (before, after))
    assert len(new) == 2
    assert torch.equal(new[1], old[-1])
    assert not torch.equal(new[0], old[0])
    assert torch.equal(after[PROJECTOR][:, :tokens], before[PROJECTOR][:, :tokens])
    monkeypatch.setattr(stack, "VISION_WEIGHTS", out / "model.safetensors")
    monkeypatch.setattr(stack, "VISION_DESCRIPTION", out / "vision.json")
    monkeypatch.setenv("MLLM_PROTECTOR_CACHE", str(tmp_path / "cache"))
    model = load_mllm("embedded", dtype="float32")
    tower = model.model.model.vision_tower
    assert tower.config.form_tokens == description["vision_config"]["form_tokens"]
    assert len(tower.config.form_tokens) == len(SHAPES)
    drawn = make_shapes(random.Random(0), Vocabulary(("a",)), ()).image
    pixels = model.encode(["What is this?"] * 2, [drawn, render_typo("baking bread")])["pixel_values"]
    with torch.inference_mode():
        own = tower(pixels).last_hidden_state[..., tokens:]
    assert not own[0, :, :number].any()
    assert not own[1, :, number:].any()


def test_no_weights_to_start_from_is_one_line(capsys, tmp_path):
    assert main(["--output-dir", str(tmp_path / "new"), "--start", str(tmp_path)]) == 2
    assert "--start: there is no" in capsys.readouterr().err
