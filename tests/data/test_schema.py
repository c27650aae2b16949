import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.data.removed import RemovedSpan
from llava.data.schema import Action, GuardFailure, GuardResult, ImageType, Question, Record, Verdict
from llava.errors import InputError

questions = st.builds(
    Question,
    benchmark=st.text(),
    scenario=st.text(),
    id=st.text(),
    image_type=st.sampled_from(ImageType),
    prompt=st.text(),
    image=st.none() | st.text(),
    harmful=st.booleans(),
    fields=st.dictionaries(st.text(), st.text()),
)
guards = st.builds(
    GuardResult,
    text=st.text(),
    original_text=st.text(),
    harm_score=st.none() | st.floats(0, 1),
    flagged=st.booleans(),
    action=st.sampled_from(Action),
    reason=st.none() | st.text(),
    removed=st.none()
    | st.lists(st.builds(RemovedSpan, st.integers(0, 99), st.integers(0, 99), st.text()), max_size=3).map(tuple),
    failure=st.none() | st.builds(GuardFailure, part=st.text(), error=st.text(), message=st.text()),
)
records = st.builds(
    Record,
    question=questions,
    response=st.text(),
    guard=st.none() | guards,
    seconds=st.dictionaries(st.sampled_from(["generate", "guard"]), st.floats(0, 10)),
    refusal=st.none() | st.text(),
)


@given(record=records)
def test_record_survives_its_line(record):
    assert Record.from_dict(json.loads(json.dumps(record.to_dict()))) == record


@given(verdict=st.builds(Verdict, judge=st.text(), unsafe=st.none() | st.booleans(), score=st.none() | st.floats(0, 1)))
def test_verdict_survives_its_line(verdict):
    assert Verdict.from_dict(json.loads(json.dumps(verdict.to_dict()))) == verdict


def test_key_tells_variants_of_a_question_apart():
    keys = {Question("b", "s", "1", image_type, "p").key for image_type in ImageType}
    assert len(keys) == len(ImageType)
    assert Question("b", "s", "1", ImageType.SD, "p").key == ("b", "s", "1", "SD")


def test_what_failed_is_written_only_where_something_did():
    question = Question("b", "s", "1", ImageType.TEXT, "p")
    plain = Record(question, "r", GuardResult("r", "r", 0.1, False, Action.PASSED)).to_dict()
    assert set(plain["guard"]) == {"text", "original_text", "harm_score", "flagged", "action", "reason"}
    assert "refusal" not in plain
    failure = GuardFailure("detector", "IndexError", "out of range")
    guard = GuardResult("w", "r", None, True, Action.WITHHELD, "detector failed: IndexError", failure)
    row = Record(question, "", guard, refusal="status 400").to_dict()
    assert row["guard"]["failure"] == {"part": "detector", "error": "IndexError", "message": "out of range"}
    assert row["refusal"] == "status 400"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": 7}, "'id' is 7, not a text"),
        ({"image_type": "PHOTO"}, "'image_type' is 'PHOTO', not one of TEXT"),
        ({"harmful": "no"}, "'harmful' is 'no', not true or false"),
        ({"fields": []}, "'fields' is a list, not an object"),
        ({"prompt": None}, "'prompt' is null, not a text"),
    ],
)
def test_fields_of_a_question_have_their_types(change, message):
    row = Question("b", "s", "1", ImageType.TEXT, "?").to_dict()
    assert Question.from_dict({**row, "fields": None}).fields == {}
    with pytest.raises(InputError, match=f"a.jsonl line 2: {message}"):
        Question.from_dict({**row, **change}, "a.jsonl line 2")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"judge": "j"}, "verdict has no 'unsafe'"),
        ({"judge": "j", "unsafe": 1}, "'unsafe' is 1, not true or false"),
        ({"judge": "j", "unsafe": True, "score": float("nan")}, "'score' is nan, not a number from 0 to 1"),
    ],
)
def test_fields_of_a_verdict_have_their_types(row, message):
    assert Verdict.from_dict({"judge": "j", "unsafe": None}) == Verdict("j", None)
    with pytest.raises(InputError, match=message):
        Verdict.from_dict(row)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"response": None}, "'response' is null, not a text"),
        ({"seconds": {"generate": "1"}}, "'generate' is '1', not a number"),
        ({"seconds": [1]}, "'seconds' is a list, not an object"),
        ({"guard": []}, "'guard' is a list, not an object"),
        ({"refusal": 4}, "'refusal' is 4, not a text"),
    ],
)
def test_fields_of_a_record_have_their_types(change, message):
    row = Record(Question("b", "s", "1", ImageType.TEXT, "?"), "r").to_dict()
    assert Record.from_dict({**row, "seconds": None, "guard": None}).guard is None
    with pytest.raises(InputError, match=f"a.jsonl line 2: {message}"):
        Record.from_dict({**row, **change}, "a.jsonl line 2")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"harm_score": float("nan")}, "'harm_score' is nan, not a number from 0 to 1"),
        ({"harm_score": True}, "'harm_score' is true"),
        ({"flagged": 1}, "'flagged' is 1, not true or false"),
        ({"action": "blocked"}, "'action' is 'blocked', not one of passed"),
        ({"text": None}, "'text' is null"),
        ({"failure": "detector failed"}, "'failure' is 'detector failed', not an object"),
        ({"failure": {"part": "detector"}}, "has no 'error'"),
    ],
)
def test_fields_of_a_guard_result_have_their_types(change, message):
    row = GuardResult("w", "r", None, True, Action.WITHHELD).to_dict()
    old = {name: value for name, value in row.items() if name != "reason"}
    assert GuardResult.from_dict(old) == GuardResult.from_dict(row)
    with pytest.raises(InputError, match=message):
        GuardResult.from_dict({**row, **change})
    del row["harm_score"]
    with pytest.raises(InputError, match="harm_score"):
        GuardResult.from_dict(row)
