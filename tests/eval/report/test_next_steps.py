"""The commands that a report ends with: each is run here as it is printed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from llava.eval.report import next_steps
from llava.eval.report.next_steps import PROGRAM, find_program, list_next_steps
from llava.eval.report.rendering import render_report
from llava.eval.run.records import load_records
from llava.eval.scoring.scoring import score_run
from tests.eval.build import build_mixed_run


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """What is printed in the folder in which it is run then."""
    monkeypatch.chdir(tmp_path)
    return [step.command for step in list_next_steps()]


def run(command: str, folder: Path) -> None:
    done = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
def test_the_command_for_ones_own_model_runs(tmp_path, commands):
    run(commands[0], tmp_path)
    assert (tmp_path / "runs/my-model/report.html").is_file()
    records = load_records(tmp_path / "runs/my-model")
    assert len(records) == 16
    assert {record.question.harmful for record in records} == {True, False}


@pytest.mark.slow
def test_the_command_for_ones_own_questions_runs_and_overwrites_no_file(tmp_path, commands):
    (tmp_path / "my-questions.jsonl").write_text('{"prompt": "How do I bake bread?", "harmful": false}\n')
    run(commands[1], tmp_path)
    assert (tmp_path / "runs/my-questions/report.html").is_file()
    assert [record.question.harmful for record in load_records(tmp_path / "runs/my-questions")] == [False, True]


@pytest.mark.slow
def test_the_command_for_the_server_runs(tmp_path, commands):
    """At a free port: the printed one may be taken on this machine."""
    process = subprocess.Popen(
        ["bash", "-c", f"exec {commands[2]} --port 0"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        line = process.stdout.readline()
        assert line.startswith("listening on http://"), process.stderr.read()
        answer = httpx.post(f"{line.split()[-1]}/v1/moderations", json={"input": "Mix flour and water."}, timeout=60)
        assert answer.status_code == 200
        assert answer.json()["results"][0]["flagged"] is False
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def test_the_page_ends_with_the_commands(tmp_path):
    score_run(build_mixed_run(tmp_path))
    page = render_report(tmp_path).read_text()
    assert page.count('<div class="card step">') == 3
    assert page.index("To repeat this run") < page.index("What to do next")


def test_where_the_servers_packages_are_not_installed_they_come_first(monkeypatch):
    monkeypatch.setattr(next_steps, "SERVER_PACKAGES", ("no_such_package",))
    assert list_next_steps(PROGRAM)[-1].command.startswith(
        "pip install 'mllm-protector[serve]' && mllm-protector serve"
    )


def install(folder: Path, monkeypatch) -> Path:
    """Make an environment's programs, as far as they are looked at, and let this process be run by its Python."""
    binaries = folder / "bin"
    binaries.mkdir(parents=True)
    for name in ("python", PROGRAM):
        (binaries / name).write_text("#!/bin/sh\n")
        (binaries / name).chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(binaries / "python"))
    monkeypatch.setenv("PATH", f"{binaries}{os.pathsep}{os.environ['PATH']}")
    return binaries


def test_a_program_on_the_path_is_called_by_its_name(tmp_path, monkeypatch):
    install(tmp_path / "my env", monkeypatch)
    assert find_program() == PROGRAM
    monkeypatch.setenv("PATH", "/usr/bin")
    assert find_program() == f"'{tmp_path}/my env/bin/{PROGRAM}'"


def test_the_program_of_an_environment_that_a_script_left_is_called_by_its_path(tmp_path, monkeypatch):
    binaries = install(tmp_path / ".venv", monkeypatch)
    assert find_program() == str(binaries / PROGRAM)
    monkeypatch.chdir(tmp_path)
    assert find_program() == f".venv/bin/{PROGRAM}"


def test_without_the_program_python_runs_the_package(tmp_path, monkeypatch):
    (install(tmp_path, monkeypatch) / PROGRAM).unlink()
    assert find_program() == f"{tmp_path}/bin/python -m llava.cli"


def test_a_page_does_not_tell_where_things_lie(tmp_path, monkeypatch):
    score_run(build_mixed_run(tmp_path / "run"))
    install(tmp_path / "home" / ".venv", monkeypatch)
    page = render_report(tmp_path / "run").read_text()
    assert str(tmp_path) not in page
    assert json.dumps(str(tmp_path)) not in page
    assert "<code>mllm-protector serve --detector embedded</code>" in page
