"""One process: claims, halves of a batch that does not fit, and errors that are stored."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from llava.data.schema import ImageType, Question
from llava.errors import FailedRunError
from llava.eval.run.claims import claim, set_aside
from llava.eval.run.job import Job, Outcome
from llava.eval.run.planning import Batch, plan_batches
from llava.eval.run.records import list_shards, merge_records, read_rows
from llava.eval.run.settings import GenerationSettings
from llava.eval.run.worker import Worker, limit_threads, run_worker
from tests.eval.run.test_answering import limit_guard

QUESTIONS = [Question("b", "A", str(i), ImageType.TEXT, f"How do I bake bread {'well ' * i}?") for i in range(6)]


def build_job(tmp_path, model, num_processes=1, **changes) -> Job:
    values = {"batch_size": 4, "max_new_tokens": 8, "device": "cpu", "dtype": "float32", **changes}
    settings = GenerationSettings(str(model), tmp_path, **values)
    job = Job(settings, "launch", num_processes, QUESTIONS, plan_batches(QUESTIONS, settings.batch_size))
    job.claims.mkdir(parents=True)
    return job


def responses(folder) -> dict[str, str]:
    return {key.id: row["response"] for key, row in read_rows(folder).items()}


def test_a_job_survives_its_json_form(tmp_path, tiny_llava):
    job = build_job(tmp_path, tiny_llava)
    again = Job.from_json(job.to_json())
    assert again.to_json() == job.to_json()
    assert again.pending == job.pending
    assert again.questions == job.questions
    assert "\n" not in job.to_json()


def test_a_batch_is_claimed_once(tmp_path):
    assert claim(tmp_path, Batch(3, (0,)), 0)
    assert not claim(tmp_path, Batch(3, (0,)), 1)
    assert claim(tmp_path, Batch(4, (1,)), 1)


def test_a_process_that_starts_late_finds_the_batch_that_was_set_aside(tmp_path, tiny_llava):
    job = build_job(tmp_path, tiny_llava, num_processes=2, batch_size=2)
    set_aside(job)
    assert run_worker(job, 0).records == 4
    assert run_worker(job, 1).records == 2
    assert len(responses(tmp_path)) == 6


def test_a_process_helps_with_the_others_batches_and_leaves_claimed_ones(tmp_path, tiny_llava):
    job = build_job(tmp_path, tiny_llava, num_processes=2, batch_size=2)
    assert [batch.index for batch in job.pending] == [0, 1, 2]
    claim(job.claims, job.pending[1], 1)
    outcome = run_worker(job, 0)
    assert outcome.error is None
    assert outcome.records == 4
    taken = {QUESTIONS[place].id for place in job.pending[1].positions}
    assert set(responses(tmp_path)) == {question.id for question in QUESTIONS} - taken


def test_a_process_without_work_loads_nothing_and_writes_no_shard(tmp_path):
    job = build_job(tmp_path, "/there/is/no/model", batch_size=2)
    for batch in job.pending:
        claim(job.claims, batch, 1)
    assert run_worker(job, 0).error is None
    assert list_shards(tmp_path) == []


def test_an_input_error_is_stored_as_one(tmp_path):
    job = build_job(tmp_path, tmp_path / "missing")
    outcome = run_worker(job, 0)
    assert outcome.kind == "input"
    assert "missing does not exist" in outcome.error
    assert Outcome(**json.loads((job.claims / "outcome-0000.json").read_text())) == outcome


def test_any_other_error_is_stored_with_its_type(tmp_path, tiny_llava, capsys):
    job = replace(build_job(tmp_path, tiny_llava), pending=[Batch(0, (len(QUESTIONS),))])
    outcome = run_worker(job, 0)
    assert outcome.kind == "failure"
    assert outcome.error.startswith("IndexError: ")
    assert "Traceback" in capsys.readouterr().err


def test_a_file_where_the_folder_of_shards_belongs_is_named(tmp_path, tiny_llava, capsys):
    job = build_job(tmp_path, tiny_llava)
    (tmp_path / "shards").write_text("")
    outcome = run_worker(job, 0)
    assert outcome.kind == "input"
    assert str(tmp_path / "shards") in outcome.error
    assert "Traceback" not in capsys.readouterr().err


def test_sampling_does_not_depend_on_who_answers(tmp_path, tiny_llava):
    whole = build_job(tmp_path / "one", tiny_llava, temperature=1.0, seed=3)
    run_worker(whole, 0)
    shared = build_job(tmp_path / "two", tiny_llava, num_processes=2, temperature=1.0, seed=3)
    claim(shared.claims, shared.pending[0], 0)
    run_worker(shared, 1)
    run_worker(shared, 0)
    assert responses(tmp_path / "one") == responses(tmp_path / "two")
    other = build_job(tmp_path / "three", tiny_llava, temperature=1.0, seed=4)
    run_worker(other, 0)
    assert responses(tmp_path / "three") != responses(tmp_path / "one")


def test_the_guard_sees_prompt_and_response(tmp_path, tiny_llava, tiny_classifier, tiny_lm):
    job = build_job(
        tmp_path, tiny_llava, detector=str(tiny_classifier), detoxifier=str(tiny_lm), threshold=1e-6, batch_size=3
    )
    outcome = run_worker(job, 0)
    assert outcome.error is None
    assert outcome.threshold == 1e-6
    assert merge_records(tmp_path, QUESTIONS) == []
    for line in (tmp_path / "records.jsonl").read_text().splitlines():
        row = json.loads(line)
        assert row["guard"]["original_text"] == row["response"]
        assert row["guard"]["flagged"] is True
        assert row["seconds"]["generate"] > 0
        assert row["seconds"]["guard"] > 0


@pytest.mark.parametrize("part", ["detector", "detoxifier"])
@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError, MemoryError])
def test_a_device_that_fails_at_a_single_row_ends_the_run_without_a_record_of_it(
    tmp_path, tiny_llava, tiny_classifier, tiny_lm, part, error
):
    blame = QUESTIONS[3]
    changes = {"detector": str(tiny_classifier), "detoxifier": str(tiny_lm), "threshold": 1e-6, "batch_size": 6}
    worker = Worker(build_job(tmp_path, tiny_llava, **changes), 0, 0, Outcome(0))
    worker.load()
    limit_guard(worker.answerer, part, 2, blame.prompt, error)
    with pytest.raises(
        FailedRunError, match=rf"could not guard question b/A/3/TEXT \(.*{part} failed: {error.__name__}"
    ):
        worker.run()
    assert read_rows(worker.job.folder) == {}


def test_a_device_that_fails_is_an_outcome_of_one_line_and_the_rest_is_kept(
    tmp_path, tiny_llava, tiny_classifier, monkeypatch
):
    from llava.protector.detector import HarmDetector

    score = HarmDetector.score
    blame = QUESTIONS[0].prompt  # the shortest, so in the last batch

    def score_within_memory(self, responses, prompts=None, *args):
        if blame in prompts:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return score(self, responses, prompts, *args)

    job = build_job(tmp_path, tiny_llava, detector=str(tiny_classifier), batch_size=2)
    with monkeypatch.context() as patched:
        patched.setattr(HarmDetector, "score", score_within_memory)
        outcome = run_worker(job, 0)
    assert outcome.kind == "failure"
    assert outcome.error.startswith("could not guard question b/A/0/TEXT (detector failed: OutOfMemoryError)")
    assert sorted(responses(tmp_path)) == ["2", "3", "4", "5"]


def test_the_threads_of_a_run_are_not_those_of_its_caller(tmp_path, tiny_llava):
    before = torch.get_num_threads()
    job = build_job(tmp_path, tiny_llava, threads=before + 1)
    with limit_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    assert run_worker(job, 0).error is None
    assert torch.get_num_threads() == before
