"""The shipped model reads: its answers change with the word in the picture. Needs the real small language model."""

from __future__ import annotations

import os

import pytest

from llava.data.typography import render_typo
from llava.model import embedded
from llava.model.base_lm import BASE_ID, BASE_VARIABLE
from llava.model.cache import CACHE_VARIABLE, cache_dir
from llava.model.loading import load_mllm

PROMPT = "Read the text in the picture."
WORDS = ("garden", "window", "music", "doctor")
"""Words of the vocabulary, each alone in a picture that no training seed made."""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The embedded model on its real base, where that lies on this machine."""
    if BASE_VARIABLE not in os.environ and not (cache_dir() / BASE_ID.rpartition("/")[2]).is_dir():
        pytest.skip(f"the embedded model's language model is not here; set {BASE_VARIABLE} to its folder")
    patch = pytest.MonkeyPatch()
    if BASE_VARIABLE not in os.environ:
        patch.setenv(BASE_VARIABLE, str(cache_dir() / BASE_ID.rpartition("/")[2]))
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
def test_other_questions_also_see_the_word(model):
    prompt = "What does the picture say?"
    first, second = model.generate([prompt] * 2, [render_typo(word) for word in WORDS[:2]], max_new_tokens=8)
    assert first != second


@pytest.mark.slow
def test_texts_without_a_picture_are_answered_as_before(model):
    [answer] = model.generate(["What is the capital of France?"], None, max_new_tokens=16)
    assert "Paris" in answer
