"""How a launch ends: whose error is shown, and what a dead process leaves."""

from __future__ import annotations

import pytest

from llava.errors import InputError
from llava.eval.run.job import Job, Outcome
from llava.eval.run.launcher import RunError, raise_first_error, read_outcome
from llava.eval.run.settings import GenerationSettings


@pytest.fixture
def job(tmp_path) -> Job:
    job = Job(GenerationSettings("m", tmp_path), "launch", 2, [], [])
    job.claims.mkdir(parents=True)
    return job


def test_an_outcome_on_file_is_read(job):
    Outcome(1, records=3, notes=["n"]).write(job)
    assert read_outcome(job, 1, 0) == Outcome(1, records=3, notes=["n"])


@pytest.mark.parametrize(
    ("code", "error"), [(-9, "was killed by SIGKILL"), (3, "ended with status 3"), (None, "left no outcome")]
)
def test_a_process_without_outcome_tells_by_its_status(job, code, error):
    outcome = read_outcome(job, 0, code)
    assert (outcome.error, outcome.kind) == (error, "failure")


def test_no_error_is_raised_when_all_is_there():
    raise_first_error([Outcome(0), Outcome(1)], 0, 10)
    raise_first_error([], 0, 10)


def test_an_input_error_goes_before_a_failure():
    outcomes = [Outcome(0, error="was killed", kind="failure"), Outcome(1, error="file x is bad", kind="input")]
    with pytest.raises(InputError, match=r"^file x is bad$"):
        raise_first_error(outcomes, 5, 10)


def test_a_failure_says_who_what_and_how_to_go_on():
    outcomes = [Outcome(0), Outcome(1, error="was killed", kind="failure"), Outcome(2, error="x", kind="failure")]
    with pytest.raises(RunError) as caught:
        raise_first_error(outcomes, 4, 10)
    assert str(caught.value) == (
        "process 1 was killed (and 1 more); 6 of 10 records are kept, run the same command again for the rest"
    )
    with pytest.raises(RunError, match="some batches were not answered; 9 of 10"):
        raise_first_error([Outcome(0)], 1, 10)
