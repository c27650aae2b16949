"""The shells: what they set up, and that they stay thin."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHELLS = sorted([*ROOT.glob("scripts/*.sh"), *ROOT.glob("llava/**/*.sh"), ROOT / ".ci" / "run"])
SCRIPTS = sorted(ROOT.glob("scripts/*.py"))


@pytest.mark.parametrize("path", SHELLS, ids=lambda path: path.name)
def test_shell_is_valid(path):
    subprocess.run(["bash", "-n", str(path)], check=True)
    text = path.read_text()
    if path.name != "environment.sh":
        assert "set -euo pipefail" in text
        code = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
        assert len(code) <= 15


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_holds_no_logic(path):
    """Its module is in the package, where it is typed, documented and tested."""
    parts = ast.parse(path.read_text(encoding="utf-8")).body
    assert [type(part) for part in parts] == [ast.Expr, ast.ImportFrom, ast.If]
    assert (parts[1].names[0].name, parts[1].level) == ("main", 0)
    assert ast.unparse(parts[2]) == "if __name__ == '__main__':\n    raise SystemExit(main())"
    module = ROOT / f"{parts[1].module.replace('.', '/')}.py"
    assert f"`{module.relative_to(ROOT)}`" in ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert module.is_file()


def test_a_script_runs():
    script = ROOT / "scripts" / "judge_agreement.py"
    done = subprocess.run([sys.executable, str(script), "--help"], capture_output=True, text=True, check=True)
    assert "usage: judge_agreement.py" in done.stdout


@pytest.mark.slow
def test_environment_is_made_once(tmp_path):
    """A project without dependencies stands in for ours, so that the test installs nothing big."""
    root = tmp_path / "clone"
    root.mkdir()
    front = '[build-system]\nrequires = ["setuptools>=77"]\nbuild-backend = "setuptools.build_meta"\n'
    (root / "pyproject.toml").write_text(
        front + '[project]\nname = "probe"\nversion = "1"\n[tool.setuptools]\npackages = []\n'
    )
    script = f'source "{ROOT}/scripts/environment.sh"; prepare_environment "{root}" ""; command -v python'
    environment = {key: value for key, value in os.environ.items() if key not in ("VIRTUAL_ENV", "CONDA_PREFIX")}

    def run():
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script], env=environment, capture_output=True, text=True, check=False
        )

    first = run()
    assert first.returncode == 0, first.stderr
    assert first.stdout.strip() == str(root / ".venv" / "bin" / "python")
    assert "installing" in first.stderr
    second = run()
    assert second.returncode == 0
    assert "installing" not in second.stderr
    (root / "pyproject.toml").write_text((root / "pyproject.toml").read_text().replace('"1"', '"2"'))
    assert "installing" in run().stderr


RECORDER = """#!/usr/bin/env bash
# Stands in for Python: prints what pytest would get, installs nothing.
case "$1 ${2:-}" in
  "-m pytest") shift 2; printf '%s\\n' "$@" "inputs=${MLLM_PROTECTOR_FUZZ_EXAMPLES:-}" ;;
  "-m pip")    ;;
  *)           dirname "$0" ;;
esac
"""


@pytest.mark.parametrize(
    ("words", "passed"),
    [
        ([], ["-m", "not slow", "inputs=50"]),
        (["tests/data", "-k", "a b"], ["-m", "not slow", "tests/data", "-k", "a b", "inputs=50"]),
        (["-m", "slow"], ["-m", "not slow", "-m", "slow", "inputs=50"]),  # the last -m counts
        (["--all"], ["--cov", "--cov-report=term", "inputs=200"]),
        (["--all", "--cov-fail-under=85"], ["--cov", "--cov-report=term", "--cov-fail-under=85", "inputs=200"]),
        (["--fuzz"], ["--timeout", "7200", "--dist", "worksteal", "tests/fuzz", "inputs=10000"]),
    ],
)
def test_the_test_command_passes_on_what_it_is_told(tmp_path, words, passed):
    python = tmp_path / "python"
    python.write_text(RECORDER)
    python.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "VIRTUAL_ENV": str(tmp_path)}
    environment.pop("MLLM_PROTECTOR_FUZZ_EXAMPLES", None)
    environment.pop("TEST_PROCESSES", None)
    command = ["bash", str(ROOT / "scripts" / "test.sh"), *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["--numprocesses", "2", "--dist", "loadgroup", *passed]


def test_no_python_is_one_line(tmp_path):
    script = f'source "{ROOT}/scripts/environment.sh"; find_python'
    tools = tmp_path / "bin"
    tools.mkdir()
    done = subprocess.run(
        [shutil.which("bash"), "-c", script], env={"PATH": str(tools)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: no Python 3.10 to 3.13")


def test_python_of_choice_comes_first(tmp_path):
    script = f'source "{ROOT}/scripts/environment.sh"; find_python'
    environment = {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == sys.executable


def test_eval_script_names_what_is_missing(tmp_path):
    script = ROOT / "llava" / "eval" / "eval_multi_safeguard.sh"
    done = subprocess.run(["bash", str(script), "m"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "MODEL RESULT_DIR NUM_GPU TEMPERATURE DETECTOR DETOXIFIER" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", ["0", "two", "-1"])
def test_eval_script_refuses_a_bad_process_count(tmp_path, number):
    script = ROOT / "llava" / "eval" / "eval_multi_safeguard.sh"
    environment = {**os.environ, "PYTHON": sys.executable}
    words = ["bash", str(script), "embedded", str(tmp_path / "out"), number, "0", "embedded", "embedded"]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, done.stderr
    assert "--num-processes" in lines[0]
    assert list(tmp_path.iterdir()) == []
