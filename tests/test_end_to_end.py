"""The whole way with the shipped stack: question → response → guard → verdict → report."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llava.cli.app import main
from llava.eval.run.records import load_records

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "llava" / "eval" / "eval_multi_safeguard.sh"


def without_times(folder):
    return [{k: v for k, v in record.to_dict().items() if k != "seconds"} for record in load_records(folder)]


def call(*arguments):
    assert main([str(argument) for argument in arguments]) == 0


@pytest.mark.slow
def test_figstep_tiny_goes_through(shared_data, tmp_path):
    run = tmp_path / "run"
    guard = ("--detector", "embedded", "--detoxifier", "embedded")
    data = ("--benchmark", "figstep", "--data-root", shared_data / "figstep")
    call("generate", "--model", "embedded", *data, *guard, "--max-new-tokens", 16, "--output", run)
    call("score", run, "--judge", "keyword", "detector")
    call("report", run)
    records = load_records(run)
    assert len(records) == 50
    assert {record.question.image_type.value for record in records} == {"IMAGE"}
    assert len({record.question.scenario for record in records}) == 10
    summary = json.loads((run / "summary.json").read_text())
    assert summary["overall"]["protected"]["n"] == 50
    assert 0 <= summary["overall"]["protected"]["attack_success_rate"] <= 1
    assert "photographs carry no meaning" in (run / "report.html").read_text()


@pytest.mark.slow
def test_eval_script_gives_the_same_records_with_two_processes(tmp_path):
    environment = {**os.environ, "PYTHON": sys.executable, "BENCHMARK": "sample", "HF_HUB_OFFLINE": "1"}
    for number in ("1", "2"):
        words = ["bash", SCRIPT, "embedded", tmp_path / number, number, "0", "embedded", "embedded"]
        more = ["--limit", "16", "--max-new-tokens", "12", "--batch-size", "4"]
        done = subprocess.run(
            [*map(str, words), *more], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
    one, two = without_times(tmp_path / "1"), without_times(tmp_path / "2")
    assert len(one) == 16
    assert one == two


@pytest.mark.slow
def test_the_guard_changes_flagged_responses_only(tmp_path):
    """The same questions without and with the protector: what is not flagged is the same to the byte."""
    base = ("--model", "embedded", "--benchmark", "sample", "--image-types", "TEXT", "--limit", 12)
    settings = (*base, "--max-new-tokens", 16, "--batch-size", 6)
    call("generate", *settings, "--output", tmp_path / "bare")
    guard = ("--detector", "embedded", "--detoxifier", "embedded", "--threshold", "0.2")
    call("generate", *settings, *guard, "--output", tmp_path / "guarded")
    bare, guarded = load_records(tmp_path / "bare"), load_records(tmp_path / "guarded")
    assert [record.key for record in bare] == [record.key for record in guarded]
    flags = [record.guard.flagged for record in guarded]
    assert not all(flags)
    for plain, safe in zip(bare, guarded, strict=True):
        assert safe.response.encode() == plain.response.encode() == safe.guard.original_text.encode()
        if not safe.guard.flagged:
            assert safe.guard.text.encode() == plain.response.encode()
