import math

import pytest

from llava.errors import InputError
from llava.fields import Fields


def test_values_of_the_right_type_come_as_they_are():
    fields = Fields({"a": "x", "b": 2, "c": True, "d": ["x"], "e": {"f": 1}, "g": None, "h": 8.0}, "row 1")
    assert fields.text("a") == "x"
    assert fields.number("b") == 2.0
    assert fields.flag("c") is True
    assert fields.texts("d") == fields.items("d") == ["x"]
    assert fields.inner("e").integer("f") == 1
    assert fields.text("g", None) is None
    assert fields.number("gone", 0.5) == 0.5
    assert fields.integer("h") == 8


@pytest.mark.parametrize(
    ("read", "value", "words"),
    [
        ("text", 5, "is 5, not a text"),
        ("text", None, "is null, not a text"),
        ("number", "8", "is '8', not a number"),
        ("number", True, "is true, not a number"),
        ("number", math.nan, "is nan, not a number"),
        ("number", math.inf, "is inf, not a number"),
        ("number", 10**400, "more than twenty digits"),
        ("integer", 1.5, "is 1.5, not a whole number"),
        ("integer", False, "is false, not a whole number"),
        ("flag", 1, "is 1, not true or false"),
        ("flag", "false", "not true or false"),
        ("texts", ["a", 1], "is a list, not a list of texts"),
        ("items", {"a": 1}, "is an object, not a list"),
        ("mapping", [1], "is a list, not an object"),
    ],
)
def test_values_of_another_type_are_named(read, value, words):
    with pytest.raises(InputError) as caught:
        getattr(Fields({"x": value}, "file.json line 3"), read)("x")
    assert str(caught.value).startswith("file.json line 3: 'x' ")
    assert words in str(caught.value)


def test_what_is_missing_out_of_range_or_unknown_is_named():
    fields = Fields({"x": 2}, "config.json", "copy it again")
    with pytest.raises(InputError, match=r"has no 'y' \(a text\); copy it again"):
        fields.text("y")
    with pytest.raises(InputError, match="a number from 0 to 1; copy it again"):
        fields.number("x", least=0, most=1)
    with pytest.raises(InputError, match="one of a, b"):
        Fields({"x": "c"}, "f").text("x", choices=("a", "b"))
    with pytest.raises(InputError, match="'x' is unknown; known are y, z"):
        fields.refuse_unknown({"y", "z"})
    with pytest.raises(InputError, match="is a list, not an object"):
        Fields([], "f")


def test_a_field_that_may_be_null_but_not_absent():
    fields = Fields({"a": None}, "row 3", "run again")
    fields.require("a")
    with pytest.raises(InputError, match="row 3 has no 'b'; run again"):
        fields.require("a", "b")
