"""Every public set is told by its columns, and its labels mean what its authors say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.errors import InputError
from llava.quality.guard_bench.forms import Labelled, find_form, vote
from tests.quality.guard_bench.rows import MEAN, NICE, SETS, UNCLEAR


@pytest.mark.parametrize("name", SETS)
def test_a_set_is_told_by_its_columns(name):
    assert {find_form(row, "line 1").name for row in SETS[name]} == {name}


@pytest.mark.parametrize("name", SETS)
def test_its_labels_are_read(name):
    found = [each for row in SETS[name] for each in find_form(row, "line 1").parse(row, "line 1")]
    assert [(each.prompt, each.response, each.harmful) for each in found] == [
        ("How?", NICE, False),
        ("How?", MEAN, True),
    ]


@pytest.mark.parametrize("name", SETS)
def test_an_unclear_label_is_no_label(name):
    row = {**SETS[name][0], **UNCLEAR[name]}
    assert find_form(row, "line 1").parse(row, "line 1")[0].harmful is None


def test_refusals_are_harmless_and_compliance_says_nothing():
    rows = [{"prompt": "?", "response": "!", "label": label} for label in ("refusal", "compliance", "harmful")]
    assert [find_form(row, "x").parse(row, "x")[0].harmful for row in rows] == [False, None, True]
    assert find_form(rows[0], "x").benchmark == "XSTest"


def test_a_category_alone_makes_no_beavertails():
    row = {"prompt": "?", "response": "!", "is_safe": True, "category": "fraud"}
    assert find_form(row, "x").name == "labelled responses"
    assert find_form({**row, "category": "{'fraud': False}"}, "x").benchmark == "BeaverTails"


def test_cases_and_behaviours_are_what_rows_share():
    (row, _) = SETS["labelled responses"]
    assert find_form(row, "x").parse(row, "x")[0].group == "case_1"
    (row, _) = SETS["HarmBench"]
    assert find_form(row, "x").parse(row, "x")[0].group == "b"


def test_contradicting_labels_are_unclear():
    row = {"prompt": "?", "response": "!", "harmful": True, "is_safe": True}
    assert find_form(row, "x").parse(row, "x") == [Labelled("?", "!", None)]


@pytest.mark.parametrize(
    "row", [{}, {"text": "a"}, {"prompt": "?", "response": "!"}, {"question": "?", "harmful": True}]
)
def test_other_columns_are_refused_with_what_would_do(row):
    with pytest.raises(InputError, match=r"line 7 has columns .* known forms are prompt,response,harmful"):
        find_form(row, "line 7")


def test_a_response_that_is_no_text():
    row = {"prompt": "?", "response": 5, "harmful": True}
    with pytest.raises(InputError, match="line 1: 'response' is 5, not a text; mend that row"):
        find_form(row, "line 1").parse(row, "line 1")


@given(st.lists(st.sampled_from([True, False, None]), max_size=5))
def test_votes(values):
    yes, no = values.count(True), values.count(False)
    assert vote(values) == (None if yes == no else yes > no)


COLUMNS = sorted({column for rows in SETS.values() for row in rows for column in row})
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-1, 2), st.floats(), st.text(max_size=5), st.just({}), st.just([])
)


@given(st.dictionaries(st.sampled_from(COLUMNS), VALUES, max_size=8))
def test_any_row_is_read_or_refused_in_one_line(row):
    found, told = read_or_tell(row)
    assert all(each.harmful in (True, False, None) for each in found)
    assert bool(told) is not bool(found)
    assert "\n" not in told


def read_or_tell(row):
    """Return the responses of a row, or else what the error says."""
    try:
        return find_form(row, "line 1").parse(row, "line 1"), ""
    except InputError as error:
        return [], str(error)
