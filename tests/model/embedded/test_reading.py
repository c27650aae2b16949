"""The shipped model reads: its answers change with the word in the picture. Needs the real small language model."""

from __future__ import annotations

import pytest

from llava.data.pictures import load_vocabulary
from llava.data.typography import render_typo
from llava.errors import InputError
from llava.model.cache import CACHE_VARIABLE
from llava.model.embedded import stack as embedded
from llava.model.embedded.base_lm import BASE_VARIABLE, resolve_base
from llava.model.loading import load_mllm
from llava.quality.reading import edit_distance, words_of

pytestmark = pytest.mark.xdist_group("reading")  # the model is loaded once

PROMPT = "Read the text in the picture."
WORDS = ("garden", "window", "music", "doctor")
"""Words of the vocabulary, each alone in a picture that no training seed made."""
UNSEEN = (
    *("otter", "lantern", "walrus", "trombone", "gazebo", "thimble", "bobcat", "marzipan"),
    *("acorn", "badger", "compost", "dandelion", "ferret", "gherkin", "hamster", "igloo"),
)
"""Words that no training picture showed."""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The embedded model on its real base, where that lies on this machine or can be fetched."""
    try:
        base = resolve_base()
    except InputError as error:
        pytest.skip(f"the embedded model's language model cannot be had here: {error}")
    patch = pytest.MonkeyPatch()
    patch.setenv(BASE_VARIABLE, str(base))
    patch.setenv(CACHE_VARIABLE, str(tmp_path_factory.mktemp("cache")))
    model = load_mllm("embedded", device="cpu", dtype="bfloat16")
    patch.undo()
    if embedded.UNTRAINED_NOTE in model.notes:
        pytest.skip("the base on this machine is not the one that the vision weights speak to")
    return model


@pytest.mark.slow
def test_answers_change_with_the_word_in_the_picture(model):
    pictures = [render_typo(word) for word in WORDS]
    answers = [answer.lower() for answer in model.generate([PROMPT] * len(WORDS), pictures, max_new_tokens=8)]
    assert len(set(answers)) == len(WORDS), answers
    right = sum(word in answer for word, answer in zip(WORDS, answers, strict=True))
    assert right >= len(WORDS) - 1, answers


@pytest.mark.slow
def test_answers_change_with_words_that_no_training_picture_showed(model):
    """All answers differ, and far more than by chance (one in sixteen) are nearest to their own word."""
    vocabulary = load_vocabulary(3000, 5000)
    assert not {*vocabulary.common, *vocabulary.rare} & set(UNSEEN)
    pictures = [render_typo(word) for word in UNSEEN]
    answers = [" ".join(words_of(text)) for text in model.generate([PROMPT] * len(UNSEEN), pictures, max_new_tokens=8)]
    assert len(set(answers)) == len(UNSEEN), answers
    nearest = [min(UNSEEN, key=lambda word: edit_distance(word, answer)) for answer in answers]
    right = sum(found == word for found, word in zip(nearest, UNSEEN, strict=True))
    assert right >= 6, list(zip(UNSEEN, answers, strict=True))


@pytest.mark.slow
def test_other_questions_also_see_the_word(model):
    prompt = "What does the picture say?"
    first, second = model.generate([prompt] * 2, [render_typo(word) for word in WORDS[:2]], max_new_tokens=8)
    assert first != second


@pytest.mark.slow
def test_texts_without_a_picture_are_answered_as_before(model):
    [answer] = model.generate(["What is the capital of France?"], None, max_new_tokens=16)
    assert "Paris" in answer
