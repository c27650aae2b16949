from __future__ import annotations

import pytest

from llava.data.rows.labels import label_columns, parse_flag, parse_side, parse_truth, read_label
from llava.errors import InputError


@pytest.mark.parametrize(
    ("value", "flag"),
    [(True, True), (1, True), ("1", True), ("TRUE ", True), (False, False), (0, False), ("False", False)]
    + [(value, None) for value in ("yes", "", "2", 2, -1, 0.0, 1.0, None, [], {}, "safe", float("nan"))],
)
def test_flags_are_strict(value, flag):
    assert parse_flag(value) is flag


def test_yes_and_no_are_read_where_they_may_be():
    assert (parse_flag("Yes", yes_no=True), parse_flag("no", yes_no=True)) == (True, False)
    assert parse_truth("no", "x") is False
    with pytest.raises(InputError, match="x is 'no'; write true or false"):
        parse_truth("no", "x", yes_no=False)


@pytest.mark.parametrize(
    ("value", "harmful"),
    [("safe", False), ("Unsafe", True), (" harmful", True), ("benign", False), ("unharmful", False)]
    + [(value, None) for value in ("not safe", "fraud", "", 1, True, None, ["safe"])],
)
def test_sides_are_strict(value, harmful):
    assert parse_side(value) is harmful


@pytest.mark.parametrize(
    ("row", "harmful"),
    [
        ({}, None),
        ({"harmful": 1}, True),
        ({"is_safe": "true"}, False),
        ({"unsafe": False}, False),
        ({"label": "safe"}, False),
        ({"label": "unsafe", "harmful": True}, True),
        ({"label": "fraud", "harmful": False}, False),
    ],
)
def test_the_column_gives_the_direction(row, harmful):
    assert read_label(row, "line 2") is harmful
    assert bool(label_columns(row)) == bool(row)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"harmful": "maybe"}, "line 2: 'harmful' is 'maybe'; write true or false"),
        ({"is_safe": None}, "'is_safe' is None"),
        ({"label": 1}, "'label' is 1, which names no side; write safe or unsafe, or call the column harmful"),
        ({"label": "fraud"}, "'label' is 'fraud', which names no side"),
        ({"label": "safe", "harmful": True}, "harmful and label contradict each other"),
        ({"is_safe": True, "harmful": True}, "harmful and is_safe contradict each other"),
    ],
)
def test_what_says_nothing_is_refused(row, message):
    with pytest.raises(InputError, match=message):
        read_label(row, "line 2")
