from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.data.benchmarks.contrast_pairs import expand_pair, is_pair
from llava.errors import InputError

PAIR = {"id": 1, "unsafe_prompt": "Bad?", "safe_prompt": "Good?"}


@given(st.dictionaries(st.sampled_from(["scenario", "note", "source"]), st.text()))
def test_other_columns_are_on_both_sides(extra):
    rows = expand_pair({**PAIR, **extra}, "line 1")
    assert [row["harmful"] for row in rows] == [True, False]
    for row in rows:
        assert extra.items() <= row.items()
        assert not any(column.startswith(("unsafe_", "safe_")) for column in row)


def test_own_images_win_over_the_shared_one():
    unsafe, safe = expand_pair({**PAIR, "image": "both.png", "safe_image": "safe.png"}, "line 1")
    assert (unsafe["image"], safe["image"]) == ("both.png", "safe.png")


def test_what_is_a_pair():
    assert is_pair(PAIR)
    assert is_pair({"safe_prompt": "?"})
    assert not is_pair({"prompt": "?", "pair": "1"})


@pytest.mark.parametrize("column", ["id", "unsafe_prompt", "safe_prompt"])
def test_a_missing_column_is_named(column):
    row = {key: value for key, value in PAIR.items() if key != column}
    with pytest.raises(InputError, match=f"line 4 is a contrast pair without '{column}'"):
        expand_pair(row, "line 4")


@pytest.mark.parametrize("column", ["prompt", "question", "harmful"])
def test_a_column_of_single_questions_is_refused(column):
    with pytest.raises(InputError, match=f"a column '{column}'"):
        expand_pair({**PAIR, column: "x"}, "line 4")
