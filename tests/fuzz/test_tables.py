"""Files of rows in any form, however damaged: each row is an object with its place, or one line says what is wrong."""

import json

from hypothesis import given
from hypothesis import strategies as st

from llava.data.rows.columns import UnreadColumns, list_images, rename_columns
from llava.data.rows.labels import read_label
from llava.data.rows.reading import iter_rows
from llava.data.rows.tables import iter_csv
from llava.protector.jsonl import read_responses
from llava.quality.guard_bench.readers import read_sources
from tests.fuzz.support import cells, check_parser, fuzz, list_tree, mutated, row_files, tables, values, write
from tests.quality.guard_bench.rows import SETS

ROW = {"prompt": "Why?", "response": "So.", "flagged": True, "images": ["a.png"], "label": "safe", "note": None}


@fuzz
@given(content=tables(("a", "b"), [("1", "2"), ("x,y", 'z"')]))
def test_csv(tmp_path, content):
    path = write(tmp_path, "x.csv", content)

    def check(rows):
        for number, row in rows:
            assert number > 1
            assert "a" in row
            assert all(isinstance(cell, str) for cell in row.values())

    check_parser(lambda: list(iter_csv(path, "table", ("a",))), check)


@fuzz
@given(file=row_files([ROW, ROW]), keyed=st.booleans())
def test_rows(tmp_path, file, keyed):
    suffix, content = file
    path = write(tmp_path, f"x{suffix}", content)

    def check(rows):
        numbers = [where.number for where, _ in rows]
        assert numbers == sorted(set(numbers))
        assert all(isinstance(row, dict) for _, row in rows)

    check_parser(lambda: list(iter_rows(path, keyed=keyed)), check)
    assert list(list_tree(tmp_path)) == [path.name]
    path.unlink()


@fuzz
@given(file=st.sampled_from(sorted(SETS)).flatmap(lambda name: row_files(SETS[name])), limit=st.none() | st.just(1))
def test_labelled_responses(tmp_path, file, limit):
    suffix, content = file
    path = write(tmp_path, f"x{suffix}", content)

    def check(reading):
        for source in reading.sources:
            assert 0 < len(source.answers) <= (limit or len(source.answers))
            for answer in source.answers:
                assert answer.response.strip()
                assert answer.harmful in (True, False)
                assert isinstance(answer.group, str)

    check_parser(lambda: read_sources([path], limit), check)
    path.unlink()


@fuzz
@given(file=row_files([ROW, ROW]), flags=st.booleans())
def test_responses(tmp_path, file, flags):
    suffix, content = file
    path = write(tmp_path, f"x{suffix}", content)

    def check(rows):
        assert rows
        for row in rows:
            assert isinstance(row["response"], str)
            assert isinstance(row.get("prompt", ""), str)
            assert not flags or row.get("flagged") in (True, False, None, "")
            json.dumps(row)

    check_parser(lambda: read_responses(path, flags), check)
    path.unlink()


@fuzz
@given(row=mutated(ROW) | st.dictionaries(cells, values, max_size=5), known=st.lists(cells, max_size=4, unique=True))
def test_columns_and_labels(row, known):
    if not isinstance(row, dict):
        return
    renamed = rename_columns(row, tuple(known))
    assert len(renamed) == len(row)
    label = check_parser(lambda: read_label(row, "row 1"))
    assert label is None or isinstance(label, bool)
    paths = check_parser(lambda: list_images(row, "row 1"))
    assert all(path.strip() for path in paths or [])
    unread = UnreadColumns("x")
    unread.see(row, known)
    assert len(unread.warn() + unread.note()) < 2000
