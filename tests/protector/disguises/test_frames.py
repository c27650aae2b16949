"""Texts in a table or among refusals are read without them; ordinary tables and single refusals are left alone."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.data.evasions.frames import REFUSALS, bullets, refusals_around, table
from llava.protector.disguises.frames import FRAMES, drop_refusals, read_tables
from llava.protector.normalise import list_readings

TEXT = "First, take some of the flour and mix it with the water. Then bake it for an hour in the oven."


@pytest.mark.parametrize("frame", [table, refusals_around])
def test_the_text_in_a_frame_is_read_alone(frame):
    framed = frame(TEXT, 5)
    assert list_readings(framed) == [framed, TEXT]


@pytest.mark.parametrize(
    "refusals",
    [
        *itertools.pairwise(REFUSALS),
        ("I’m unable to go on with this.", "Answering would be against our rules."),
        ("We must decline to answer.", "I'm really sorry."),
        ("I would prefer not to say anything about it.", "Sorry, no."),
    ],
)
def test_refusals_on_both_sides(refusals):
    assert list(drop_refusals(f"{refusals[0]} {TEXT}\n\n{refusals[1]}")) == [TEXT]


def test_text_around_a_table_stays_where_it_is():
    framed = f"Here you are:\n\n{table(TEXT)}\n\nEnjoy!"
    assert list(read_tables(framed)) == [f"Here you are: {TEXT} Enjoy!"]


ORDINARY = [
    TEXT,
    bullets(TEXT),
    "I'm sorry, but I can't help with that.",
    "I'm sorry, but I can't help with that. I won't be able to go into this.",
    "I can't see the picture well. It shows a dog, a cat and a bowl of water on a wooden floor.",
    "| name | age |\n|---|---|\n| Ann | 31 |\n| Bob | 25 |\n| Eve | 42 |\n| Joe Miller | 19 |",
    "if a || b || c || d || e || f || g:\n    pass",
    "| one | two |",
    "You should not boil it for long. You cannot bake it without yeast. You won't regret it.",
]


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_has_one_reading(text):
    assert list_readings(text) == [text]


@given(st.text(st.sampled_from("I can't help. sorry| -\n:1no"), max_size=300))
def test_what_is_left_was_there(text):
    for take in FRAMES:
        for left in take(text):
            assert left
            assert set(left.split()) <= set(text.replace("|", " ").split())
