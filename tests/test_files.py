import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.errors import InputError
from llava.files import read_json, read_jsonl, write_json, write_jsonl, write_text_atomic


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
