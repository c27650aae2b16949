"""No record is lost or doubled, whatever a kill leaves behind."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llava.data.schema import ImageType, Question, Record
from llava.errors import InputError
from llava.eval.run.records import ShardWriter, list_shards, load_records, merge_records, parse_shard, read_rows


def build_question(number: int) -> Question:
    return Question("b", "A", str(number), ImageType.TEXT, f"prompt {number}")


def build_record(number: int, response: str = "answer\u2028 with\n odd breaks\r 😀") -> Record:
    return Record(build_question(number), response, seconds={"generate": 0.5})


@settings(max_examples=60)
@given(st.data())
def test_merging_gives_each_question_once_and_in_order(data):
    count = data.draw(st.integers(1, 12))
    numbers = data.draw(st.permutations(range(count)))
    shards = data.draw(st.lists(st.lists(st.sampled_from(numbers), max_size=8), max_size=4))
    torn = data.draw(st.integers(0, 30))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for rank, shard in enumerate(shards):
            writer = ShardWriter(folder, "launch", rank)
            for number in shard:
                writer.append([build_record(number)])
            if shard:
                line = json.dumps(build_record(shard[-1]).to_dict()).encode()
                with writer.path.open("ab") as stream:
                    stream.write(line[:torn])
        written = {number for shard in shards for number in shard}
        assert {int(key.id) for key in read_rows(folder)} == written
        missing = merge_records(folder, [build_question(number) for number in numbers])
        assert [int(key.id) for key in missing] == [number for number in numbers if number not in written]
        if missing:
            assert not (folder / "records.jsonl").exists()
            ShardWriter(folder, "later", 0).append([build_record(int(key.id)) for key in missing])
            assert merge_records(folder, [build_question(number) for number in numbers]) == []
        assert load_records(folder) == [build_record(number) for number in numbers]
        assert list_shards(folder) == []
        assert merge_records(folder, [build_question(number) for number in numbers]) == []


@given(st.lists(st.dictionaries(st.text(max_size=3), st.text(max_size=5), max_size=2), max_size=5), st.integers(0, 400))
def test_a_shard_cut_anywhere_keeps_its_whole_lines(rows, cut):
    content = b"".join(json.dumps(row).encode() + b"\n" for row in rows)[:cut]
    assert parse_shard(content, Path("x")) == rows[: content.count(b"\n")]


@pytest.mark.parametrize("line", [b"{", b"[1]", b"", b"\xff\xfe"])
def test_a_corrupt_line_that_is_not_the_last_is_refused(line):
    with pytest.raises(InputError, match=r"shard s/x\.jsonl line 2 is corrupt"):
        parse_shard(b'{"a": 1}\n' + line + b'\n{"a": 2}\n', Path("s/x.jsonl"))


def test_the_first_answer_of_a_question_counts(tmp_path):
    ShardWriter(tmp_path, "20250101", 0).append([build_record(1, "first")])
    ShardWriter(tmp_path, "20250102", 0).append([build_record(1, "second")])
    merge_records(tmp_path, [build_question(1)])
    assert [record.response for record in load_records(tmp_path)] == ["first"]


def test_an_empty_append_makes_no_file(tmp_path):
    ShardWriter(tmp_path, "launch", 0).append([])
    assert list(tmp_path.iterdir()) == []


def test_loading_says_what_is_wrong(tmp_path):
    with pytest.raises(InputError, match=r"holds no records\.jsonl; run `generate"):
        load_records(tmp_path)
    ShardWriter(tmp_path, "launch", 0).append([build_record(1), build_record(2)])
    with pytest.raises(InputError, match=r"is not finished \(2 records so far\)"):
        load_records(tmp_path)
    (tmp_path / "records.jsonl").write_text("")
    with pytest.raises(InputError, match="is empty"):
        load_records(tmp_path)
    (tmp_path / "records.jsonl").write_text('{"benchmark": "b"}\n')
    with pytest.raises(InputError, match=r"records\.jsonl line 1 has no 'scenario' \(a text\); generate it again"):
        load_records(tmp_path)
    with pytest.raises(InputError, match="line 1 has no 'scenario'"):
        read_rows(tmp_path)
