import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.data.schema import Action, GuardResult, ImageType, Question, Record, Verdict
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
)
records = st.builds(
    Record,
    question=questions,
    response=st.text(),
    guard=st.none() | guards,
    seconds=st.dictionaries(st.sampled_from(["generate", "guard"]), st.floats(0, 10)),
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
        ({"judge": "j"}, "'unsafe' is null, not true, false or null"),
        ({"judge": "j", "unsafe": 1}, "'unsafe' is 1, not true or false"),
        ({"judge": "j", "unsafe": True, "score": float("nan")}, "'score' is nan, not a number from 0 to 1"),
    ],
)
def test_fields_of_a_verdict_have_their_types(row, message):
    assert Verdict.from_dict({"judge": "j", "unsafe": None}) == Verdict("j", None)
    with pytest.raises(InputError, match=message):
        Verdict.from_dict(row)
