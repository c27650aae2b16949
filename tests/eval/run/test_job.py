"""What launcher and workers tell each other comes through whole."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from llava.data.schema import ImageType, Question
from llava.eval.run.job import FAILURE, Job, Outcome
from llava.eval.run.planning import plan_batches
from llava.eval.run.settings import GenerationSettings

TEXT = st.text(min_size=1, max_size=20)
QUESTIONS = st.lists(
    st.builds(
        Question,
        st.just("sample"),
        TEXT,
        TEXT,
        st.sampled_from(list(ImageType)),
        TEXT,
        image=st.none() | TEXT,
        harmful=st.booleans(),
    ),
    max_size=6,
)


@given(
    questions=QUESTIONS, size=st.integers(1, 4), num_processes=st.integers(1, 5), scenarios=st.none() | st.tuples(TEXT)
)
def test_a_job_comes_through_standard_input_as_it_is(questions, size, num_processes, scenarios):
    settings = GenerationSettings("model", "runs/a", scenarios=scenarios, detector="embedded", batch_size=size)
    job = Job(settings, "0003", num_processes, questions, plan_batches(questions, size))
    line = job.to_json()
    assert "\n" not in line  # a worker reads one line
    again = Job.from_json(line)
    assert again.questions == questions
    assert again.pending == job.pending
    assert (again.launch, again.num_processes) == ("0003", num_processes)
    assert again.settings.to_dict() == settings.to_dict()
    assert again.claims == Path("runs/a/claims/0003")


def test_each_process_leaves_its_own_outcome(tmp_path):
    job = Job(GenerationSettings("model", tmp_path), "0000", 2, [], [])
    job.claims.mkdir(parents=True)
    Outcome(0, records=3, notes=["untrained"], threshold=0.5).write(job)
    Outcome(1, error="out of paper", kind=FAILURE).write(job)
    first, second = (json.loads(path.read_text()) for path in sorted(job.claims.glob("outcome-*.json")))
    assert Outcome(**first) == Outcome(0, records=3, notes=["untrained"], threshold=0.5)
    assert (second["rank"], second["error"], second["kind"]) == (1, "out of paper", "failure")
