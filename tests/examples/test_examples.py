"""Every example is run: with tiny models as a program of its own, and each stands in the examples' README."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.eval.build import build_mixed_run
from tests.model.chat_server import ChatServer

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"


def run(name: str, *words: object, cwd: Path) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, str(EXAMPLES / name), *map(str, words)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_each_example_is_named_and_tested():
    page = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    here = Path(__file__).read_text(encoding="utf-8")
    names = sorted(path.name for path in EXAMPLES.glob("*.py"))
    assert len(names) >= 4
    for name in names:
        assert f"[{name}]({name})" in page
        assert f'run("{name}"' in here


def test_guard_pipeline(tiny_detector, tiny_detoxifier, tmp_path):
    done = run("guard_pipeline.py", "--detector", tiny_detector, "--detoxifier", tiny_detoxifier, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len([line for line in lines if re.match(r"(passed|rewritten|refused) +harm score [01]\.\d{3}  ", line)]) == 2
    assert len([line for line in lines if line.startswith("> ")]) >= 2


def test_train_on_own_data(tiny_lm, tmp_path):
    done = run("train_on_own_data.py", "--base", tiny_lm, "--output", "own", "--epochs", "1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "held out: " in done.stdout
    settings = json.loads((tmp_path / "own" / "protector_config.json").read_text())
    assert f"threshold {settings['threshold']:.3f}" in done.stdout
    assert len((tmp_path / "own-rows.jsonl").read_text().splitlines()) == 80


def test_train_on_own_data_names_a_missing_file(tiny_lm, tmp_path):
    done = run("train_on_own_data.py", "--base", tiny_lm, "--data", "absent.jsonl", cwd=tmp_path)
    assert done.returncode == 2
    assert "absent.jsonl does not exist" in done.stderr


def test_add_judge(tmp_path):
    folder = build_mixed_run(tmp_path)
    done = run("add_judge.py", folder, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["judge"] == "steps"
    assert "judge steps" in done.stdout
    assert list((folder / "verdicts").glob("steps-*.jsonl"))


def test_add_judge_on_no_run(tmp_path):
    done = run("add_judge.py", tmp_path / "absent", cwd=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


def test_evaluate_endpoint(tiny_detector, tmp_path):
    with ChatServer(lambda request: "Mix flour and water, then bake it.") as server:
        words = ("--endpoint", server.url, "--model", "tiny", "--detector", tiny_detector, "--limit", 4)
        done = run("evaluate_endpoint.py", *words, cwd=tmp_path)
        asked = len(server.requests)
    assert done.returncode == 0, done.stderr
    assert asked == 4
    assert (tmp_path / "runs" / "endpoint" / "report.html").is_file()
    assert json.loads((tmp_path / "runs" / "endpoint" / "summary.json").read_text())["records"] == 4


@pytest.mark.slow
def test_the_embedded_detector_guards_the_pipeline(tmp_path):
    done = run("guard_pipeline.py", "--detoxifier", "none", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "passed    harm score" in done.stdout
