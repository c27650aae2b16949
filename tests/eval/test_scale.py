"""A benchmark of full size: 1,680 questions in four image types. Run with `-s` to see the times."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from llava.data.schema import ImageType
from llava.eval.preparation import Plan, prepare_run
from llava.eval.records import ShardWriter, load_records, merge_records
from llava.eval.report import render_report
from llava.eval.runner import finish_launch, start_launch
from llava.eval.scoring import score_run
from llava.eval.settings import GenerationSettings
from tests.eval.browser import open_page, requires_chromium
from tests.eval.scale import COUNTS, build_benchmark, build_records, count_by_type

GENEROUS = 60.0
"""Seconds that no step may take, on whatever machine; docs/evaluation.md has what they do take."""
PAGE_BYTES = 15_000_000


@contextmanager
def timed(what: str):
    start = time.perf_counter()
    yield
    seconds = time.perf_counter() - start
    print(f"{what}: {seconds:.2f} s")
    assert seconds < GENEROUS


@pytest.fixture(scope="module")
def benchmark_folder(tmp_path_factory) -> Path:
    return build_benchmark(tmp_path_factory.mktemp("mm_safetybench"))


@pytest.fixture(scope="module")
def settings(benchmark_folder, tiny_llava, tiny_classifier, tmp_path_factory) -> GenerationSettings:
    return GenerationSettings(
        model=str(tiny_llava),
        output=tmp_path_factory.mktemp("scale") / "run",
        benchmark="mm_safetybench",
        data_root=benchmark_folder,
        detector=str(tiny_classifier),
        device="cpu",
        batch_size=8,
    )


@pytest.fixture(scope="module")
def finished_run(settings) -> Path:
    """A run that is resumed after half of its records, and then holds all of them."""
    with timed("read, check and plan a new run"):
        plan = prepare_run(settings)
        job = start_launch(plan)
    assert len(job.pending) == len(plan.batches)
    records = build_records(plan.questions)
    answered = [place for batch in plan.batches[: len(plan.batches) // 2] for place in batch.positions]
    ShardWriter(plan.folder, job.launch, 0).append([records[place] for place in answered])
    with timed("read, check and plan the other half"):
        plan = prepare_run(settings)
        job = start_launch(plan)
    assert len(job.pending) == len(plan.batches) - len(plan.batches) // 2
    still_open = [place for batch in job.pending for place in batch.positions]
    ShardWriter(plan.folder, job.launch, 0).append([records[place] for place in still_open])
    with timed("merge"):
        finish_launch(plan, job, [])
    return plan.folder


@pytest.mark.slow
def test_the_whole_benchmark_is_read_planned_and_resumed(settings, finished_run):
    plan: Plan = prepare_run(settings)
    kinds = count_by_type(plan.questions)
    assert [kinds[kind] for kind in ImageType] == [sum(COUNTS)] * 4 + [0]
    with timed("resume a finished run"):
        plan = prepare_run(settings)
        assert start_launch(plan).pending == []
        assert merge_records(plan.folder, plan.questions) == []
    keys = [record.key for record in load_records(finished_run)]
    assert keys == [question.key for question in plan.questions]
    assert prepare_run(replace(settings, num_processes=3)).batches == plan.batches


@pytest.mark.slow
def test_the_report_of_the_whole_benchmark_stays_small(finished_run):
    with timed("score"):
        score_run(finished_run)
    with timed("write the report"):
        page = render_report(finished_run)
    size = page.stat().st_size
    print(f"report: {size / 1e6:.1f} MB")
    assert size < PAGE_BYTES


@pytest.mark.slow
@requires_chromium
def test_the_report_of_the_whole_benchmark_opens_fast(finished_run):
    score_run(finished_run)
    page = render_report(finished_run)
    with open_page(page) as browser:
        timing = browser.execute_script(
            "const entry = performance.getEntriesByType('navigation')[0];"
            "return [entry.domContentLoadedEventEnd, entry.loadEventEnd];"
        )
        print(f"page load: {timing[0] / 1000:.2f} s to its content, {timing[1] / 1000:.2f} s to the end")
        assert 0 < timing[1] < 1000 * GENEROUS
        assert browser.find_element("id", "count").text == f"{4 * sum(COUNTS)} of {4 * sum(COUNTS)} records"
