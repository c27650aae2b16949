from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.data.rows.tables import find_delimiter, iter_csv
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


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_header_tells_what_parts_the_cells(tmp_path, delimiter):
    rows = [("One, two; three\tfour", "5"), ("", "6")]
    with (tmp_path / "x.csv").open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, delimiter=delimiter).writerows([("a", "b"), *rows])
    assert [tuple(row.values()) for _, row in iter_csv(tmp_path / "x.csv")] == rows


@pytest.mark.parametrize(
    ("header", "delimiter"),
    [("a", ","), ('"a;b",c', ","), ("a;b,c;d", ";"), ("a\tb", "\t"), ('"a\nb";c', ";"), ("a,b;c", ",")],
)
def test_delimiters_of_headers(header, delimiter):
    assert find_delimiter(header) == delimiter


def test_names_of_columns_are_stripped_and_required_ones_found_in_any_case(tmp_path):
    (tmp_path / "x.csv").write_text(" Goal , Note\n1,2\n")
    assert [row for _, row in iter_csv(tmp_path / "x.csv", "table", ("goal",))] == [{"goal": "1", "Note": "2"}]
    (tmp_path / "x.csv").write_text("Goal,GOAL\n1,2\n")
    with pytest.raises(InputError, match="has no column goal"):
        list(iter_csv(tmp_path / "x.csv", "table", ("goal",)))


def test_a_cell_of_many_examples_is_read(tmp_path):
    long = "How? " * 40_000
    (tmp_path / "x.csv").write_text(f'a,b\n"{long}",2\n')
    assert [row["a"] for _, row in iter_csv(tmp_path / "x.csv")] == [long]


def test_lines_of_an_old_mac_and_an_index_column(tmp_path):
    (tmp_path / "x.csv").write_bytes(b",a\r0,1\r1,2\r")
    assert [row for _, row in iter_csv(tmp_path / "x.csv")] == [{"": "0", "a": "1"}, {"": "1", "a": "2"}]
