from __future__ import annotations

import gzip
import json
import lzma

import pytest

from llava.data.rows import streams
from llava.data.rows.reading import check_plain, is_row_file, iter_rows
from llava.errors import InputError

ROWS = [{"prompt": "One, two?", "note": "ä\n;"}, {"prompt": "Three?", "note": ""}]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
LIST = json.dumps(ROWS, indent=1)
TABLE = 'prompt,note\n"One, two?","ä\n;"\nThree?,\n'
FORMS = {
    "lines.jsonl": LINES,
    "lines.json": LINES,
    "lines-with-blanks.json": "\n" + LINES.replace("\n", "\n\n"),
    "list.json": LIST,
    "list.jsonl": LIST,
    "one-line.jsonl": json.dumps(ROWS),
    "table.csv": TABLE,
    "table-semicolons.csv": TABLE.replace('prompt,note\n"One, two?",', 'prompt;note\n"One, two?";').replace("?,", "?;"),
    "table-tabs.tsv": TABLE.replace('prompt,note\n"One, two?",', 'prompt\tnote\n"One, two?"\t').replace("?,", "?\t"),
    "lines.csv": LINES,
}


def read(path):
    return [row for _, row in iter_rows(path)]


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("pack", ["", ".gz", ".xz"])
def test_every_form_gives_the_same_rows(tmp_path, name, mark, pack):
    content = (mark + FORMS[name]).encode()
    packed = {"": content, ".gz": gzip.compress(content), ".xz": lzma.compress(content)}[pack]
    (tmp_path / f"{name}{pack}").write_bytes(packed)
    assert read(tmp_path / f"{name}{pack}") == ROWS


def test_a_compressed_file_is_known_by_its_content(tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(gzip.compress(LINES.encode()))
    assert read(tmp_path / "rows.jsonl") == ROWS


def test_places_are_those_of_an_editor(tmp_path):
    (tmp_path / "a.json").write_text("\n" + LINES + "\n" + LINES)
    assert [str(where).rsplit("/", 1)[1] for where, _ in iter_rows(tmp_path / "a.json")] == [
        "a.json line 2",
        "a.json line 3",
        "a.json line 5",
        "a.json line 6",
    ]
    (tmp_path / "b.json").write_text(LIST)
    assert [str(where).rsplit("/", 1)[1] for where, _ in iter_rows(tmp_path / "b.json")] == [
        "b.json row 1",
        "b.json row 2",
    ]


def test_parquet_and_a_cell_that_json_has_no_form_for(tmp_path):
    from datasets import Dataset

    Dataset.from_list([*ROWS]).to_parquet(str(tmp_path / "a.parquet"))
    assert read(tmp_path / "a.parquet") == ROWS
    Dataset.from_list([{"a": b"bytes"}]).to_parquet(str(tmp_path / "b.parquet"))
    with pytest.raises(InputError, match="row 1: 'a' is of type bytes that JSON has no form for"):
        check_plain(read(tmp_path / "b.parquet")[0], "row 1")


def test_an_object_of_id_to_row(tmp_path):
    (tmp_path / "a.json").write_text('{"x": {"prompt": "One?"}, "y": {"prompt": "Two?", "id": "z"}}')
    assert [row for _, row in iter_rows(tmp_path / "a.json", keyed=True)] == [
        {"id": "x", "prompt": "One?"},
        {"id": "z", "prompt": "Two?"},
    ]
    with pytest.raises(InputError, match="not a JSON list of objects; save it as JSON Lines"):
        read(tmp_path / "a.json")


def test_a_row_of_several_lines(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps(ROWS[0], indent=2))
    assert read(tmp_path / "a.jsonl") == ROWS[:1]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"a": 1}\n{"a"', "line 2 is not valid JSON"),
        ("a.jsonl", b'{"a": 1\n{"a": 2}\n', "line 1 is not valid JSON .* mend that line"),
        ("a.jsonl", b"prompt,response\n1,2\n", "line 1 is not valid JSON .* a CSV file ends in .csv"),
        ("a.jsonl", b'{"a": 1}\n[2]\n', "line 2 is not a JSON object"),
        ("a.json", b'{"a": 1}', "not a JSON list of objects"),
        ("a.json", b'{"a": 1}\n{"a"', "line 2 is not valid JSON"),
        ("a.json", b'[{"a": 1}, 2]', "row 2 is not an object"),
        ("a.jsonl", b'[{"a": 1}, 2]', "row 2 is not an object"),
        ("a.jsonl", b"[1]", "line 1 is not a JSON object"),
        ("a.json", b'[{"a": 1},', "is not valid JSON"),
        ("a.jsonl.gz", b"plain", "cannot be read"),
        ("a.jsonl.gz", gzip.compress(LINES.encode() * 50, mtime=0)[:-20], "cannot be read .damaged .gz file"),
        ("a.jsonl.gz", b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03nonsense", "cannot be read .damaged .gz file"),
        ("a.jsonl.xz", lzma.compress(LINES.encode())[:-9], "cannot be read .damaged .xz file"),
        ("a.jsonl", "ä".encode("latin-1"), "not UTF-8"),
        ("a.jsonl", LINES.encode("utf-16"), "not UTF-8"),
        ("a.csv", b"PK\x03\x04 a spreadsheet", "is a ZIP archive or a spreadsheet"),
        ("a.parquet", b"PAR1 not really", "not a Parquet file"),
    ],
)
def test_bad_files_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as raised:
        read(tmp_path / name)
    assert name in str(raised.value)


def test_a_saved_data_set_is_named_for_what_it_is(tmp_path):
    from datasets import Dataset, DatasetDict

    Dataset.from_list(ROWS).save_to_disk(str(tmp_path / "one"))
    DatasetDict({"train": Dataset.from_list(ROWS)}).save_to_disk(str(tmp_path / "several"))
    for name in ("one", "several"):
        with pytest.raises(InputError, match=f"{name} is a folder of Dataset.save_to_disk.* Dataset.to_json"):
            read(tmp_path / name)
    with pytest.raises(InputError, match="is a folder; give the file inside it"):
        read(tmp_path)


@pytest.mark.parametrize("name", ["none.jsonl", "x" * 300 + ".jsonl", "a\0b.jsonl"])
def test_a_file_that_is_not_there(tmp_path, name):
    with pytest.raises(InputError):
        read(tmp_path / name)


def test_names_of_row_files():
    assert [name for name in ("a.json", "A.JSONL.GZ", "a.tsv", "a.txt", "a.parquet", "a.gz") if is_row_file(name)] == [
        "a.json",
        "A.JSONL.GZ",
        "a.tsv",
        "a.parquet",
    ]


def test_a_line_that_unpacks_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "LONGEST_LINE", 1 << 20)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b" " * (1 << 24)))
    assert (tmp_path / "a.jsonl.gz").stat().st_size < 20_000
    with pytest.raises(InputError, match="has a line of 1,048,576 characters or more"):
        read(tmp_path / "a.jsonl.gz")


@pytest.mark.parametrize("text", [r"\ud83d", r"\uDE00", r"a\ud83d\ud83d\ude00", r"\\\\\ud83d"])
def test_half_a_surrogate_pair_is_replaced_or_refused(tmp_path, text):
    (tmp_path / "a.jsonl").write_text('{"a": "x"}\n{"a": "' + text + '"}\n')
    assert "\ufffd" in read(tmp_path / "a.jsonl")[1]["a"]
    with pytest.raises(InputError, match="line 2 holds half of a surrogate pair"):
        list(iter_rows(tmp_path / "a.jsonl", whole_text=True))


@pytest.mark.parametrize("text", [r"\ud83d\ude00", r"\\ud83d", r"\\\\ud83d", "😀", "\ufffd"])
def test_whole_pairs_and_backslashes_are_no_half_pairs(tmp_path, text):
    (tmp_path / "a.jsonl").write_text('{"a": "' + text + '"}\n')
    assert len(list(iter_rows(tmp_path / "a.jsonl", whole_text=True))) == 1
