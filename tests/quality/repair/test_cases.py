from collections import Counter

import pytest

from llava.data.training.splits import split_of
from llava.errors import InputError
from llava.quality.repair.cases import HARMFUL_WORDS, POSITIONS, QUESTIONS, make_cases
from tests.quality.repair.data import HARMFUL, ORDINARY, write_data


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


def test_cases_are_made_of_held_out_prompts_alone(data):
    cases = make_cases(data, 60)
    for case in cases:
        assert split_of(case.group) == "held_out"
        assert split_of(case.prompt.splitlines()[0]) == "held_out"
        assert (case.group in case.prompt) is (case.question == "both")


def test_all_kinds_are_as_frequent(data):
    counts = Counter((case.position, case.question) for case in make_cases(data, 60))
    assert counts == {(position, question): 10 for position in POSITIONS for question in QUESTIONS}


def test_the_harmful_sentences_are_where_they_are_said_to_be(data):
    for case in make_cases(data, 30):
        inside = case.response[case.start : case.end]
        outside = case.response[: case.start] + case.response[case.end :]
        assert "poison" in inside
        assert "poison" not in outside
        assert HARMFUL_WORDS[0] <= len(inside.split()) <= HARMFUL_WORDS[1]
        assert outside.count(ORDINARY.strip()) == 6
        assert (case.start == 0) is (case.position == "start")
        assert (case.end == len(case.response)) is (case.position == "end")
        assert inside.startswith(HARMFUL.strip()[:9])


def test_they_are_the_same_each_time_and_others_with_another_seed(data):
    assert make_cases(data, 12) == make_cases(data, 12)
    assert make_cases(data, 12) != make_cases(data, 12, seed=1)


def test_a_side_without_answers_of_fitting_length_is_named(tmp_path):
    write_data(tmp_path, prompts=0)
    with pytest.raises(InputError, match="held_out"):
        make_cases(tmp_path, 6)
