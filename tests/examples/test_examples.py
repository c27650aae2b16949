"""Every example is run, with tiny models, and each stands in the examples' README."""

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from llava.eval.judges.registry import JUDGES
from tests.eval.build import build_mixed_run
from tests.model.chat_server import ChatServer

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run an example in an empty folder as its current one."""
    monkeypatch.chdir(tmp_path)
    judges = dict(JUDGES)

    def call(name: str, *words: object) -> int:
        sys.modules.pop(f"examples.{name}", None)
        return importlib.import_module(f"examples.{name}").main([str(word) for word in words])

    yield call
    JUDGES.clear()
    JUDGES.update(judges)


def test_each_example_is_named_and_tested():
    page = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    here = Path(__file__).read_text(encoding="utf-8")
    names = sorted(path.stem for path in EXAMPLES.glob("*.py"))
    assert len(names) >= 4
    for name in names:
        assert f"[{name}.py]({name}.py)" in page
        assert f'run("{name}"' in here


def test_guard_pipeline(run, tiny_detector, tiny_detoxifier, capsys):
    assert run("guard_pipeline", "--detector", tiny_detector, "--detoxifier", tiny_detoxifier) == 0
    lines = capsys.readouterr().out.splitlines()
    line = re.compile(r"(passed|trimmed|rewritten|refused) +harm score [01]\.\d{3}  ")
    assert len([text for text in lines if line.match(text)]) == 2
    assert len([text for text in lines if text.startswith("> ")]) >= 2


def test_train_on_own_data(run, tiny_lm, tmp_path, capsys):
    assert run("train_on_own_data", "--base", tiny_lm, "--output", "own", "--epochs", "1") == 0
    printed = capsys.readouterr().out
    assert "held out: " in printed
    settings = json.loads((tmp_path / "own" / "protector_config.json").read_text())
    assert f"threshold {settings['threshold']:.3f}" in printed
    assert len((tmp_path / "own-rows.jsonl").read_text().splitlines()) == 80


def test_train_on_own_data_names_a_missing_file(run, tiny_lm, capsys):
    assert run("train_on_own_data", "--base", tiny_lm, "--data", "absent.jsonl") == 2
    assert "absent.jsonl does not exist" in capsys.readouterr().err


def test_add_judge(run, tmp_path, capsys):
    folder = build_mixed_run(tmp_path / "run")
    assert run("add_judge", folder) == 0
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["judge"] == "steps"
    assert "judge steps" in capsys.readouterr().out
    assert list((folder / "verdicts").glob("steps-*.jsonl"))


def test_add_judge_as_a_program_on_no_run(tmp_path):
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "add_judge.py"), "absent"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")


def test_evaluate_endpoint(run, tiny_detector, tmp_path):
    with ChatServer(lambda request: "Mix flour and water, then bake it.") as server:
        words = ("--endpoint", server.url, "--model", "tiny", "--detector", tiny_detector, "--limit", 4)
        assert run("evaluate_endpoint", *words) == 0
        assert len(server.requests) == 4
    assert (tmp_path / "runs" / "endpoint" / "report.html").is_file()
    assert json.loads((tmp_path / "runs" / "endpoint" / "summary.json").read_text())["records"] == 4


@pytest.mark.slow
def test_the_embedded_stack_guards_the_pipeline(run, capsys):
    assert run("guard_pipeline") == 0
    assert "passed    harm score" in capsys.readouterr().out
