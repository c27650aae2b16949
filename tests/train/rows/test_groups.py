from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.data.training.pairs import DetectorRow
from llava.train.rows.detector import EncodedRow
from llava.train.rows.groups import add_prefixes, weigh_groups


def encoded(source, harmful, weight=1.0):
    return EncodedRow([], harmful, weight, 0.0, DetectorRow("", "x", harmful, source))


def test_weights_of_groups_by_hand():
    """Group a weighs 3, b the default 1; six rows of weight 1 weigh 6 in the end as well: 4.5 and 1.5."""
    rows = [encoded("a", True), *[encoded("a", False)] * 3, *[encoded("b", False)] * 2]
    weights = [row.weight for row in weigh_groups(rows, {"a": 3.0})]
    assert weights == pytest.approx([2.25, 0.75, 0.75, 0.75, 0.75, 0.75])
    assert sum(weights) == pytest.approx(len(rows))


def test_without_totals_nothing_changes():
    rows = [encoded("a", True, 2.0), encoded("b", False)]
    assert weigh_groups(rows, {}) == rows


def test_a_rows_own_weight_still_counts_inside_its_group():
    rows = weigh_groups([encoded("a", True, 3.0), encoded("a", True, 1.0)], {"a": 5.0})
    assert [row.weight for row in rows] == pytest.approx([3.0, 1.0])
    silent = weigh_groups([encoded("a", True, 0.0), encoded("b", True, 1.0)], {"a": 5.0})
    assert [row.weight for row in silent] == [0.0, 1.0]


@given(st.text(min_size=1), st.booleans())
def test_a_prefix_is_the_beginning_of_its_row(text, harmful):
    row = DetectorRow("Why?", text, harmful, "s")
    kept, *added = add_prefixes([row], 1.0)
    assert kept == row
    assert len(added) == (len(text.split()) > 1)
    for short in added:
        assert text.startswith(short.response)
        assert 0 < len(short.response) < len(text)
        assert (short.prompt, short.harmful, short.source) == ("Why?", harmful, "s")
        assert not harmful or len(short.response.split()) >= len(text.split()) // 2


def test_how_many_and_which():
    rows = [DetectorRow("", f"one two three {i}", False, "s") for i in range(200)]
    added = add_prefixes(rows, 0.25)[200:]
    assert 25 < len(added) < 75
    assert added == add_prefixes(rows, 0.25)[200:]
    assert set(Counter(row.response for row in added)) <= {"one", "one two", "one two three"}
    assert add_prefixes(rows, 0.0) == rows
    pair = DetectorRow("", "one two", False, "s", pair_id="p", chosen=True)
    assert add_prefixes([pair], 1.0) == [pair]
