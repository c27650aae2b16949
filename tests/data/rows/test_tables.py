from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.data.rows.tables import iter_csv
from llava.errors import InputError

CELLS = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\x00"), max_size=12)


@given(st.lists(st.tuples(CELLS, CELLS), max_size=6), st.booleans())
def test_what_the_csv_module_writes_is_read_back(tmp_path_factory, rows, mark):
    stream = io.StringIO(newline="")
    csv.writer(stream, quoting=csv.QUOTE_ALL).writerows([("a", "b"), *rows])
    path = tmp_path_factory.mktemp("csv") / "x.csv"
    path.write_bytes(stream.getvalue().encode("utf-8-sig" if mark else "utf-8"))
    assert [row for _, row in iter_csv(path)] == [{"a": a, "b": b} for a, b in rows]


def test_line_numbers_are_those_of_an_editor(tmp_path):
    (tmp_path / "x.csv").write_text('a,b\n1,2\n\n"two\nlines",3\n4,5\n')
    assert [line for line, _ in iter_csv(tmp_path / "x.csv")] == [2, 5, 6]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a,b\n1,2,3\n", "line 2 has 3 cells for 2 columns"),
        (b"a,b\n1\n", "line 2 has 1 cells"),
        (b"a\n1\n", "has no column b"),
        (b"", "has no column b"),
        (b"a,b,a\n", "names the column 'a' twice"),
        (b"a,b\n\xff,2\n", "not UTF-8"),
        (b'a,b\n1,"2"x\n', "line 2 is not valid CSV"),
        (b'a,b\n1,"2\n', "not valid CSV"),
    ],
)
def test_bad_files_are_named_with_the_place(tmp_path, content, message):
    (tmp_path / "x.csv").write_bytes(content)
    with pytest.raises(InputError, match=message) as raised:
        list(iter_csv(tmp_path / "x.csv", "table", ("b",)))
    assert "x.csv" in str(raised.value)


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        list(iter_csv(tmp_path / "none.csv"))
