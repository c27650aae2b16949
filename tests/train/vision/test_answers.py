"""Slots learn to answer about what an image says."""

from __future__ import annotations

import itertools
import random

import pytest
import torch

from llava.data.pictures import Vocabulary, find_typefaces
from llava.data.pictures.scenes import make_captioned
from llava.data.pictures.topics import Topic
from llava.errors import InputError
from llava.train.vision.answers import AnswerArguments, build_lessons, main, mix_lessons
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


def test_names_of_the_shipped_weights_are_those_that_are_read():
    from safetensors.torch import load_file

    from llava.model.embedded.stack import VISION_WEIGHTS
    from llava.train.vision.answers import PROJECTOR, read_slots

    weights = load_file(VISION_WEIGHTS)
    slots = read_slots(weights, 49)
    assert slots.shape == (49, 576)
    assert torch.equal(slots[-1], weights[PROJECTOR][:, -1].float())
    assert slots.norm(dim=1).min() > 0
    with pytest.raises(InputError, match="--read-share"):
        AnswerArguments(read_share=2.0)
    with pytest.raises(InputError, match="--read-mixture names cats; kinds are phrase"):
        AnswerArguments(read_mixture="page:1,cats:2")
    with pytest.raises(InputError, match="--read-mixture has 'page'"):
        AnswerArguments(read_mixture="page")


def test_no_weights_to_start_from_is_one_line(capsys, tmp_path):
    assert main(["--output-dir", str(tmp_path / "new"), "--start", str(tmp_path)]) == 2
    assert "--start: there is no" in capsys.readouterr().err
