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

GUARD = {"text": "a", "original_text": "a", "harm_score": 0.1, "flagged": False, "action": "passed"}


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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"response": None}, "'response' is null, not a text"),
        ({"id": 7}, "'id' is 7, not a text"),
        ({"image_type": "VIDEO"}, "'image_type' is 'VIDEO', not one of TEXT, SD, TYPO, SD_TYPO, IMAGE"),
        ({"harmful": "yes"}, "'harmful' is 'yes', not true or false"),
        ({"fields": []}, "'fields' is a list, not an object"),
        ({"seconds": {"generate": "0.5"}}, ": 'generate' is '0.5', not a number of at least 0"),
        ({"guard": "passed"}, "'guard' is 'passed', not an object"),
        ({"guard": {}}, "'guard' has no 'harm_score'"),
        ({"guard": {**GUARD, "harm_score": float("nan")}}, "'guard': 'harm_score' is nan, not a number from 0 to 1"),
        ({"guard": {**GUARD, "harm_score": True}}, "'harm_score' is true, not a number from 0 to 1"),
        ({"guard": {**GUARD, "flagged": None}}, "'flagged' is null, not true or false"),
        ({"guard": {**GUARD, "action": "hidden"}}, "'action' is 'hidden', not one of passed, trimmed, rewritten, "),
    ],
)
def test_a_field_of_another_type_is_named_with_its_line(tmp_path, changes, message):
    rows = [build_record(1).to_dict(), {**build_record(2).to_dict(), **changes}, build_record(3).to_dict()]
    content = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "x-0000.jsonl").write_text(content)
    with pytest.raises(InputError) as caught:
        read_rows(tmp_path)
    assert str(caught.value).startswith(f"shard {tmp_path / 'shards' / 'x-0000.jsonl'} line 2")
    assert message in str(caught.value)
    (tmp_path / "records.jsonl").write_text(content)
    for read in (read_rows, load_records):
        with pytest.raises(InputError) as caught:
            read(tmp_path)
        assert str(caught.value).startswith(f"record file {tmp_path / 'records.jsonl'} line 2")
        assert message in str(caught.value)


def test_a_question_that_stands_there_twice_is_refused(tmp_path):
    lines = [json.dumps(build_record(number).to_dict()) + "\n" for number in (1, 2, 1)]
    (tmp_path / "records.jsonl").write_text("".join(lines))
    with pytest.raises(InputError, match=r"line 3 has the question of line 1; delete one of the two"):
        load_records(tmp_path)


def test_what_others_keep_beside_the_shards_stays(tmp_path):
    ShardWriter(tmp_path, "launch", 0).append([build_record(1)])
    (tmp_path / "shards" / "notes.txt").write_text("mine")
    assert merge_records(tmp_path, [build_question(1)]) == []
    assert [path.name for path in (tmp_path / "shards").iterdir()] == ["notes.txt"]
