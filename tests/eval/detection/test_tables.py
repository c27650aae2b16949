"""Rows as JSON Lines, CSV and Parquet: every value comes back, and memory holds a part of the rows."""

import csv
import json

import pytest
from pyarrow import parquet

from llava.errors import InputError
from llava.eval.detection.tables import BLOCK, write_rows

ROWS = [
    {"id": 1, "response": 'a "quoted", text\nof two lines', "harm_score": 0.25, "flagged": False},
    {"id": 2, "response": "ü", "harm_score": None, "flagged": True, "note": ["x", 1]},
]


def write(path, rows):
    write_rows(path, lambda: iter(rows))
    return path


def test_json_lines_are_the_rows(tmp_path):
    path = write(tmp_path / "out.whatever", ROWS)
    assert [json.loads(line) for line in path.read_text().splitlines()] == ROWS


def test_csv_has_a_column_for_every_name(tmp_path):
    with write(tmp_path / "out.CSV", ROWS).open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert rows == [
        {"id": "1", "response": ROWS[0]["response"], "harm_score": "0.25", "flagged": "false", "note": ""},
        {"id": "2", "response": "ü", "harm_score": "", "flagged": "true", "note": '["x", 1]'},
    ]


def read_parquet(path):
    return parquet.read_table(path).to_pylist()


def test_parquet_keeps_types(tmp_path):
    rows = [{**row, "tags": ["a"], "inner": {"x": 1.5}} for row in ROWS]
    found = read_parquet(write(tmp_path / "out.parquet", rows))
    assert [row["flagged"] for row in found] == [False, True]
    assert [row["harm_score"] for row in found] == [0.25, None]
    assert found[0]["tags"] == ["a"]
    assert found[1]["inner"] == {"x": 1.5}
    assert found[0]["note"] is None


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2.5], [1.0, 2.5]),
        ([1, "a"], ["1", "a"]),
        ([{}, {}], ["{}", "{}"]),
        ([None, None], [None, None]),
        ([1 << 70, 1], [str(1 << 70), "1"]),
        ([(1 << 60) + 1, 0.5], [str((1 << 60) + 1), "0.5"]),
        ([True, 3], ["true", "3"]),
        ([[1], "x"], ["[1]", "x"]),
        ([{"a": 1}, {"b": "x"}], [{"a": 1, "b": None}, {"a": None, "b": "x"}]),
    ],
)
@pytest.mark.parametrize("apart", [False, True])
def test_values_of_several_kinds_lose_nothing(tmp_path, values, expected, apart):
    between = [{"value": None}] * (BLOCK if apart else 0)
    rows = [{"value": values[0]}, *between, {"value": values[1]}]
    found = read_parquet(write(tmp_path / "out.parquet", rows))
    assert [found[0]["value"], found[-1]["value"]] == expected


def test_parquet_is_written_in_row_groups(tmp_path):
    path = write(tmp_path / "out.parquet", [{"response": str(i)} for i in range(2 * BLOCK + 1)])
    assert parquet.ParquetFile(path).num_row_groups == 3
    assert [row["response"] for row in read_parquet(path)] == [str(i) for i in range(2 * BLOCK + 1)]


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_what_fails_half_way_leaves_nothing(tmp_path, ending):
    def rows():
        yield ROWS[0]
        raise InputError("row 2 is bad")

    with pytest.raises(InputError, match="row 2 is bad"):
        write_rows(tmp_path / f"out.{ending}", rows)
    assert list(tmp_path.iterdir()) == []
