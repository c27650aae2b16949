"""No text is judged twice, and no old verdict sticks to a new text."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from llava.constants import REFUSAL, WITHHELD
from llava.errors import InputError
from llava.eval.judges.registry import name_file
from llava.eval.scoring.verdicts import judge_records, list_questions, load_verdicts, read_verdicts
from tests.eval.build import ANSWER, build_record
from tests.eval.judges.test_registry import CountingJudge


def test_a_second_call_asks_nothing(tmp_path):
    records = [build_record(0), build_record(1, "Do it!", shown=REFUSAL), build_record(2, guarded=False)]
    judge = CountingJudge()
    first = judge_records(tmp_path, records, judge)
    assert [text for _, text in judge.asked] == [ANSWER, "Do it!", ANSWER, REFUSAL]
    assert [row.unprotected.unsafe for row in first] == [False, True, False]
    assert [row.protected and row.protected.unsafe for row in first] == [False, False, None]
    again = CountingJudge()
    assert judge_records(tmp_path, records, again) == first
    assert again.asked == []


def test_a_new_text_and_a_new_record_are_asked(tmp_path):
    judge_records(tmp_path, [build_record(0), build_record(1)], CountingJudge())
    judge = CountingJudge()
    judge_records(tmp_path, [build_record(0), build_record(1, "New!"), build_record(2)], judge)
    assert sorted(text for _, text in judge.asked) == sorted(["New!", ANSWER])


def test_a_judge_of_another_identity_starts_anew(tmp_path):
    judge_records(tmp_path, [build_record(0)], CountingJudge())
    other = CountingJudge()
    other.identity = "2"
    judge_records(tmp_path, [build_record(0)], other)
    assert len(other.asked) == 1
    assert len(list((tmp_path / "verdicts").iterdir())) == 2


@pytest.mark.parametrize("cut", [1, 20, 100])
def test_a_torn_last_line_is_judged_again(tmp_path, cut):
    records = [build_record(i, f"text {i}") for i in range(3)]
    expected = judge_records(tmp_path, records, CountingJudge())
    path = tmp_path / "verdicts" / name_file(CountingJudge())
    path.write_bytes(path.read_bytes()[:-cut])
    judge = CountingJudge()
    assert judge_records(tmp_path, records, judge) == expected
    assert [text for _, text in judge.asked] == ["text 2"]
    assert len(read_verdicts(path)) == 3
    assert len([json.loads(line) for line in path.read_text().splitlines()]) == 3


def test_reading_mends_nothing(tmp_path):
    judge_records(tmp_path, [build_record(0), build_record(1, "New!")], CountingJudge())
    path = tmp_path / "verdicts" / name_file(CountingJudge())
    torn = path.read_bytes()[:-5]
    path.write_bytes(torn)
    assert len(read_verdicts(path)) == 1
    summary = {"judge": "j", "verdict_files": {"j": f"verdicts/{path.name}"}}
    assert len(load_verdicts(tmp_path, summary)) == 1
    assert path.read_bytes() == torn


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"texts": 5}, "line 2: 'texts' is 5, not a text"),
        ({"scenario": None}, "line 2: 'scenario' is null, not a text"),
        ({"unprotected": "safe"}, "line 2: 'unprotected' is 'safe', not an object"),
        ({"unprotected": {"judge": "j", "unsafe": "no"}}, "'unprotected': 'unsafe' is 'no', not true or false"),
        ({"protected": {"judge": "j", "unsafe": True, "score": float("inf")}}, "'score' is inf, not a number from 0"),
    ],
)
def test_a_field_of_another_type_is_named_with_its_line(tmp_path, changes, message):
    judge_records(tmp_path, [build_record(0), build_record(1)], CountingJudge())
    path = tmp_path / "verdicts" / name_file(CountingJudge())
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[1] |= changes
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InputError) as caught:
        judge_records(tmp_path, [build_record(0), build_record(1)], CountingJudge())
    assert f"verdict file {path}" in str(caught.value)
    assert message in str(caught.value)


def test_a_corrupt_line_is_named(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text("nonsense\n{}\n")
    with pytest.raises(InputError, match=r"x\.jsonl line 1 is corrupt"):
        read_verdicts(path)


def test_what_never_came_is_unscored_asked_of_nobody_and_on_file(tmp_path):
    cut = replace(build_record(0, "", shown=WITHHELD), unanswered="cut before the model said anything")
    empty = build_record(1, "", shown=WITHHELD)
    judge = CountingJudge()
    assert [asked.text for asked in list_questions(tmp_path, [cut], judge)] == []
    first = judge_records(tmp_path, [cut, empty], judge)
    assert [text for _, text in judge.asked] == [WITHHELD]  # of the one that is empty by the model's own choice
    assert [row.unprotected.unsafe for row in first] == [None, False]
    assert first[0].protected.unsafe is None
    again = CountingJudge()
    assert judge_records(tmp_path, [cut, empty], again) == first
    assert again.asked == []
    (path,) = (tmp_path / "verdicts").iterdir()
    assert len(read_verdicts(path)) == 2
