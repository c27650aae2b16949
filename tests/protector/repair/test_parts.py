import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.protector.repair.parts import LONGEST, cut_parts

PIECES = [
    "Boil it. ",
    "水を沸かす。",
    "\n",
    "- a\n",
    "```\n",
    "x = 1.5\n",
    "1. ",
    " ",
    "Dr. Who ",
    "?!",
    "\u0301",
    "no stop",
]


def cut(text):
    return [text[start:end] for start, end in cut_parts(text)]


@given(st.one_of(st.text(), st.lists(st.sampled_from(PIECES), max_size=30).map("".join)))
def test_parts_tile_the_text(text):
    parts = cut_parts(text)
    assert "".join(text[start:end] for start, end in parts) == text
    assert all(start < end for start, end in parts)
    assert all(any(map(str.isalnum, piece)) for piece in cut(text)[:-1])


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", []),
        (" \n", [" \n"]),
        ("One. Two? Three!", ["One. ", "Two? ", "Three!"]),
        ('He said "No." Then he (Mr. A. Smith, i.e. the cook) left… So', None),
        ("Version 3.14 is out.\n\nGet it.", ["Version 3.14 is out.\n\n", "Get it."]),
        ("水を沸かす。塩を入れる！「はい。」終わり", ["水を沸かす。", "塩を入れる！", "「はい。」", "終わり"]),
        ("पानी उबालो। नमक डालो।", ["पानी उबालो। ", "नमक डालो।"]),
        ("Steps:\n1. Boil it.\n2. Salt it. Stir.\n", ["Steps:\n", "1. Boil it.\n", "2. Salt it. ", "Stir.\n"]),
        ("**1. Salt:** put it\n- a\n\n---\n* b", ["**1. Salt:** put it\n", "- a\n\n---\n", "* b"]),
        ("So:\n```py\nx = 1. \n\ny = 2\n```\nDone.", ["So:\n", "```py\nx = 1. \n\ny = 2\n```\n", "Done."]),
        ("So:\n~~~\nnever. closed. at all.", ["So:\n", "~~~\nnever. closed. at all."]),
    ],
)
def test_where_a_text_is_cut(text, parts):
    expected = ['He said "No." ', "Then he (Mr. A. Smith, i.e. the cook) left… ", "So"] if parts is None else parts
    assert cut(text) == expected


@pytest.mark.parametrize("text", ["word " * 1000, "x" * 5000, "水" * 5000, "a, b; c: " * 500])
def test_a_text_without_the_end_of_a_sentence_is_cut_all_the_same(text):
    pieces = cut(text)
    assert len(pieces) > 5
    assert max(map(len, pieces)) <= LONGEST + 100


@pytest.mark.parametrize("unit", [".", ". ", "!*", '."', "```\n", "1. ", "-", "\n", "a. ", "。"])
def test_a_text_of_signs_takes_no_time(unit):
    begun = time.process_time()
    text = unit * (100_000 // len(unit))
    assert "".join(cut(text)) == text
    assert time.process_time() - begun < 10
