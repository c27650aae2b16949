import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.errors import FailedRunError, InputError
from llava.files import expand_home, explain_writing, read_json, read_jsonl, write_json, write_jsonl, write_text_atomic

FULL = Path("/dev/full")


def test_failed_write_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    with pytest.raises(UnicodeEncodeError):
        write_text_atomic(path, "\ud800")
    assert read_json(path) == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_new_file_follows_the_umask(tmp_path):
    old = os.umask(0o027)
    try:
        write_text_atomic(tmp_path / "x", "y")
    finally:
        os.umask(old)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o640


@given(rows=st.lists(st.dictionaries(st.text(), st.text() | st.integers() | st.none())))
def test_jsonl_round_trip(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("jsonl") / "rows.jsonl"
    write_jsonl(path, rows)
    assert read_jsonl(path) == json.loads(json.dumps(rows))


@pytest.mark.parametrize(
    ("content", "word"), [(b"{", "line 1"), (b"\xff", "UTF-8"), (b'{"a": 1}\n[]\n', "line 2"), (None, "does not exist")]
)
def test_bad_jsonl(tmp_path, content, word):
    path = tmp_path / "x.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=word) as caught:
        read_jsonl(path)
    assert str(path) in str(caught.value)


def test_bad_json(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_json(tmp_path / "gone.json")
    with pytest.raises(InputError, match="folder"):
        read_json(tmp_path)
    (tmp_path / "x.json").write_bytes(b"\xff")
    with pytest.raises(InputError, match="UTF-8"):
        read_json(tmp_path / "x.json")


def test_byte_order_mark_is_no_content(tmp_path):
    (tmp_path / "x.json").write_bytes(b"\xef\xbb\xbf" + b'{"a": 1}')
    assert read_json(tmp_path / "x.json") == {"a": 1}
    assert read_jsonl(tmp_path / "x.json") == [{"a": 1}]


def test_half_a_surrogate_pair_becomes_a_replacement_character(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"a": "Nice \\ud83d day", "b": "\\ud83d\\ude00"}\n')
    assert read_jsonl(tmp_path / "x.jsonl") == [{"a": "Nice \ufffd day", "b": "\U0001f600"}]


@pytest.mark.parametrize("content", ["[" * 100_000, "[" * 101 + "]" * 101, '{"a": ' + "9" * 5000 + "}"])
def test_json_that_python_chokes_on(tmp_path, content):
    (tmp_path / "x.json").write_text(content)
    for read in (read_json, read_jsonl):
        with pytest.raises(InputError, match=r"x\.json") as caught:
            read(tmp_path / "x.json")
        assert len(str(caught.value)) <= 500


def test_only_regular_files_are_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="no regular file"):
        write_json(tmp_path / "pipe", 1)
    assert (tmp_path / "pipe").is_fifo()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    write_json(tmp_path / "link", 1)
    assert (tmp_path / "link").is_symlink()
    assert read_json(tmp_path / "target") == 1


def test_names_and_places_that_cannot_be(tmp_path):
    with pytest.raises(InputError, match="cannot be written"):
        write_json(tmp_path / ("x" * 300), 1)
    with pytest.raises(InputError, match="cannot be read"):
        read_json(tmp_path / ("x" * 300))


@pytest.mark.skipif(not FULL.exists(), reason="no device that is always full")
def test_a_full_disk_is_no_fault_of_the_input(tmp_path):
    with (
        pytest.raises(FailedRunError, match="free space"),
        explain_writing(tmp_path / "x"),
        FULL.open("w") as full,
    ):
        full.write("x" * 10)


@pytest.mark.parametrize("name", ["~\0", "~\0/a", "~\ud800", "~nobody-has-this-name/a", "a~", ""])
def test_a_home_that_nobody_has_stays_as_it_is(name):
    assert expand_home(name) == name


def test_the_home_is_put_in_full(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert (expand_home("~"), expand_home("~/a")) == (str(tmp_path), str(tmp_path / "a"))
