import json

import pytest

from llava.cli.quickstart import BENCHMARK, IMAGE_TYPES, run_quickstart
from llava.data.benchmarks import load_benchmark
from llava.eval.report.next_steps import list_next_steps
from llava.eval.run.records import load_records


@pytest.mark.slow
def test_quickstart_ends_in_a_report_and_a_second_run_asks_nothing_again(tmp_path, capsys):
    page = run_quickstart(tmp_path, limit=8, max_new_tokens=8)
    assert page == tmp_path / "report.html"
    captured = capsys.readouterr()
    assert "report.html" in captured.err + captured.out
    for line in (
        "without the protector",
        "with the protector",
        "harmless questions whose answer the protector changed",
    ):
        assert line in captured.out
    assert " of 1\n" in captured.out  # one of eight questions is harmless
    for step in list_next_steps():
        assert step.command in captured.err.splitlines()
    records = tmp_path / "records.jsonl"
    before = records.read_bytes()
    assert len(load_records(tmp_path)) == 8
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["judge"] == "embedded"
    assert set(summary["judges"]) == {"keyword", "detector:embedded"}  # beside it
    run_quickstart(tmp_path, limit=8, max_new_tokens=8)
    assert records.read_bytes() == before


def test_the_quickstart_asks_harmless_questions_too_and_no_more_than_five_minutes_allow():
    questions = load_benchmark(BENCHMARK, image_types=IMAGE_TYPES).questions
    harmless = [question for question in questions if not question.harmful]
    assert (len(questions), len(harmless)) == (182, 26)
    assert {question.image_type.value for question in questions} == set(IMAGE_TYPES)
