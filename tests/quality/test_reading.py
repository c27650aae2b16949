"""Figures of reading, from models whose answers are known."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.data.pictures import Vocabulary, find_typefaces
from llava.data.pictures.scenes import make_list
from llava.quality.reading import (
    edit_distance,
    measure_shapes,
    measure_titles,
    measure_words,
    title_of,
    words_read,
)

WORDS = Vocabulary(("bread", "river", "stone"))


class Parrot:
    """Answers every question with the same words and remembers what it was asked."""

    def __init__(self, answer: str):
        self.answer, self.asked = answer, []

    def generate(self, prompts, images, *, max_new_tokens):
        assert len(prompts) == len(images) <= 16
        self.asked += list(zip(prompts, images, strict=True))
        return [self.answer] * len(prompts)


@given(st.text("abc", max_size=6), st.text("abc", max_size=6), st.text("abc", max_size=6))
def test_edit_distance_is_a_metric(a, b, c):
    assert edit_distance(a, b) == edit_distance(b, a)
    assert (edit_distance(a, b) == 0) == (a == b)
    assert edit_distance(a, c) <= edit_distance(a, b) + edit_distance(b, c)


@pytest.mark.parametrize(
    ("wanted", "answer", "right"),
    [
        ("Stop here", "stop here.", 2),
        ("stop here", 'The text is: "stop here"', 0),
        ("stop here", "here stop", 0),
        ("stop here", "stop", 1),
        ("one two three four", "one two nine four", 3),
        ("stop", "", 0),
    ],
)
def test_words_count_in_their_order(wanted, answer, right):
    assert words_read(wanted, answer) == (right, len(wanted.split()))


def test_titles_end_before_the_first_item():
    assert title_of("List of 12 things.\n1.\n2.") == "List of 12 things."
    assert title_of("Steps to win 1. 2. 3.") == "Steps to win"
    assert title_of("Steps to win") == "Steps to win"


def test_a_constant_reader_is_right_by_chance_only():
    model = Parrot("bread")
    figures = measure_words(model, WORDS, find_typefaces(["Aileron"]), pictures=40, seed=3)
    assert len(model.asked) == 80
    for part in ("phrases", "typo"):
        assert figures[part]["pictures"] == 40
        assert 0.0 < figures[part]["word_accuracy"] < 0.4
        low, high = figures[part]["ci95"]
        assert low < figures[part]["word_accuracy"] < high


def test_shape_answers_must_be_exact():
    figures = measure_shapes(Parrot("Red."), pictures=60, seed=1)
    assert 0 < figures["colour"]["accuracy"] < 0.4
    assert figures["shape"]["accuracy"] == figures["number"]["accuracy"] == 0
    both = figures["colour_and_shape"]
    assert (both["questions"], both["accuracy"]) == (120, figures["colour"]["accuracy"] / 2)
    assert measure_shapes(Parrot("red or green"), pictures=20, seed=1)["colour"]["accuracy"] == 0


def test_title_figures():
    image = make_list(random.Random(0), WORDS, find_typefaces(["Aileron"])).image
    figures = measure_titles(
        Parrot("Steps to bake bred. 1. 2. 3."), [(image, "Steps to bake bread."), (image, "Steps")]
    )
    assert figures["character_error_rate"] == pytest.approx((1 + 14) / 25)
    assert figures["word_accuracy"] == pytest.approx(3 / 5)
    assert figures["title_accuracy"] == 0
    assert measure_titles(Parrot("Steps 1."), [(image, "Steps")])["character_error_rate"] == 0
