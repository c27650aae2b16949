"""Options as people write them."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.errors import InputError
from llava.options import find_cut_path, read_options, split_items, to_word

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10)
)


def read(tmp_path, text, **options):
    path = tmp_path / "options.yaml"
    path.write_text(text) if isinstance(text, str) else path.write_bytes(text)
    return read_options(path, **options)


def test_values_come_back_as_yaml_has_them(tmp_path):
    text = "batch-size: 4\nthreshold: 0.5\ndetector: /a, b\nresume: true\nlimit: ~\njudge: [keyword, 'detector']\n"
    assert read(tmp_path, text) == {
        "batch_size": 4,
        "threshold": 0.5,
        "detector": "/a, b",
        "resume": True,
        "limit": None,
        "judge": ["keyword", "detector"],
    }
    assert read(tmp_path, "a: {b: [1, {c: 2}]}\n", nested=["a"]) == {"a": {"b": [1, {"c": 2}]}}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (BOMB, "has an alias"),
        ("judge: &a [*a]\n", "has an alias"),
        ("base: &b {x: 1}\n<<: *b\n", "has an alias"),
        ("x: " + "[" * 40 + "]" * 40, "nested too deeply"),
        ("x: " + "[" * 100_000, "nested too deeply"),
        ("x: {y: 1}\n", "holds a mapping"),
        ("x: [[1]]\n", "holds a list"),
        ("x: " + "9" * 5000, "a number of 5,000 digits"),
        ("x: .inf\n", "give a finite number"),
        ("x: 2026-01-01\n", "write a text in quotes"),
        ("x: !!binary aGk=\n", "write a text in quotes"),
        ("x: !!python/object:os.system {}\n", "holds a mapping"),
        ("x: !!python/name:os.system a\n", "is not valid YAML"),
        ("x: 1\nx: 2\n", "stands there twice"),
        ("max-rows: 1\nmax_rows: 2\n", "stands there twice"),
        ("- a\n", "is not a mapping; write 'option: value' lines"),
        ("", "is not a mapping; write 'option: value' lines"),
        ("x: [1\n", "is not valid YAML"),
        ("[a]: 1\n", "a name is no text"),
        ("x: \x00", "YAML"),
        (b"x: \xff\n", "UTF-8"),
        ("x: " + "y" * (1 << 20), "more than"),
    ],
)
def test_what_no_file_of_options_holds_is_one_line_soon(tmp_path, text, told):
    start = time.monotonic()
    with pytest.raises(InputError, match=told) as caught:
        read(tmp_path, text)
    assert "options.yaml" in str(caught.value)
    assert len(str(caught.value)) <= 500
    assert time.monotonic() - start < 20


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="gone"):
        read_options(tmp_path / "gone.yaml")


@given(text=st.text(max_size=200))
def test_any_text_is_read_or_refused(tmp_path_factory, text):
    folder = tmp_path_factory.getbasetemp()
    try:
        values = read(folder, text.encode("utf-8", "surrogatepass"))
    except InputError:
        return
    assert all(isinstance(name, str) for name in values)


WORDS = st.lists(st.text(alphabet="ab/.:@-_", min_size=1, max_size=8), max_size=4)


@given(items=WORDS)
def test_a_list_is_split_at_its_separators(items):
    assert split_items(", ".join(items)) == items
    inside = f"any({', '.join(items)})"
    assert split_items(f"x, {inside} ,y") == ["x", inside, "y"]


@given(text=st.text(alphabet="any(),;'\" x", max_size=40))
def test_nothing_but_blanks_and_separators_is_lost(text):
    kept = "".join("".join(split_items(text)).split()).replace(",", "")
    assert kept == "".join(text.split()).replace(",", "")


def test_a_list_is_cut_inside_a_path_only_where_that_path_is_there(tmp_path):
    path = tmp_path / "a, b,c"
    path.mkdir()
    for item in (f"{path}", f"detector:{path}", f"guard:wild_guard@{path}", f"detector:guard:{path}"):
        assert find_cut_path(f"keyword, {item},embedded", ", ") == item
    for text in (f"'{path}'", f"'guard:{path}', x", f"{path}/gone", f"{tmp_path},{tmp_path}", "a, b", "", ",", "a\0,b"):
        assert find_cut_path(text, ", ") is None
    # What is read as a list today goes on being one: each item of it is there.
    (tmp_path / "a").mkdir()
    assert find_cut_path(str(path), ", ") is None


@pytest.mark.parametrize(
    ("value", "is_switch", "told"),
    [(1, True, "give true or false"), ("true", True, "give true or false"), (False, False, "a text in quotes")],
)
def test_a_value_of_the_wrong_kind_is_refused(value, is_switch, told):
    with pytest.raises(InputError, match=told):
        to_word(value, "--config x: 'y'", is_switch=is_switch)
