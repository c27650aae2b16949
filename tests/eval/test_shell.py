"""The shell driver: the whole way from a model to a report, and its errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "llava" / "eval" / "eval_multi_safeguard.sh"


def run_script(*arguments: str, cwd: str | None = None, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["bash", str(SCRIPT), *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(SCRIPT.parents[2]), **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_the_script_only_passes_on_what_it_gets():
    lines = SCRIPT.read_text().splitlines()
    assert len(lines) <= 15
    assert "set -euo pipefail" in lines
    assert not any(line.strip().startswith(("for ", "while ", "case ")) for line in lines)


@pytest.mark.slow
def test_from_a_model_to_a_report(tmp_path, tiny_llava, tiny_classifier, tiny_lm):
    run = tmp_path / "run"
    arguments = (str(tiny_llava), str(run), "2", "0", str(tiny_classifier), str(tiny_lm))
    options = ("--limit", "6", "--max-new-tokens", "8", "--device", "cpu")
    done = run_script(*arguments, *options, BENCHMARK="sample")
    assert done.returncode == 0, done.stderr
    assert len((run / "records.jsonl").read_text().splitlines()) == 6
    assert json.loads((run / "summary.json").read_text())["records"] == 6
    assert (run / "report.html").is_file()
    assert list(run.glob("*/merged.json"))


@pytest.mark.slow
def test_from_the_root_folder_with_slashes_behind_the_folders(tmp_path, tiny_llava, tiny_detector, tiny_detoxifier):
    """As a job's script calls it: by its full path, from anywhere, with folders as a shell completes them."""
    before = sorted(path.name for path in Path("/").iterdir())
    run = tmp_path / "run"
    arguments = [f"{folder}/" for folder in (tiny_llava, run, tiny_detector, tiny_detoxifier)]
    arguments[2:2] = ["1", "0"]
    options = ("--limit", "2", "--image-types", "TEXT", "--max-new-tokens", "4", "--device", "cpu")
    done = run_script(*arguments, *options, cwd="/", BENCHMARK="sample")
    assert done.returncode == 0, done.stderr
    assert json.loads((run / "summary.json").read_text())["records"] == 2
    assert (run / "report.html").is_file()
    # Nothing lies beside the run's folder, nor where the script was started.
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert sorted(path.name for path in Path("/").iterdir()) == before


@pytest.mark.parametrize("number", ["0", "two"])
def test_a_bad_number_of_processes_is_one_line(tmp_path, tiny_llava, number):
    done = run_script(str(tiny_llava), str(tmp_path / "run"), number, "0", "embedded", "embedded", BENCHMARK="sample")
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "--num-processes" in done.stderr
    assert not (tmp_path / "run").exists()


def test_missing_arguments_are_named_in_one_line():
    done = run_script("model")
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "MODEL RESULT_DIR NUM_GPU TEMPERATURE DETECTOR DETOXIFIER" in done.stderr
