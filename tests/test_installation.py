"""Outside an environment the shells say how to make one."""

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from llava.installation import NEEDED, describe_missing

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = [
    ("llava/eval/eval_multi_safeguard.sh", "m", "out", "1", "0", "none", "none"),
    ("scripts/train_harm_detector.sh",),
    ("scripts/train_detoxifier.sh",),
    ("scripts/finetune.sh", "--base", "x"),
]


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory) -> Path:
    """The bin folder of an environment in which nothing is installed."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=False, symlinks=True)
    return folder / "bin"


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: Path(command[0]).stem)
def test_a_shell_outside_an_environment_says_how_to_make_one(bare_python, tmp_path, command):
    kept = {key: value for key, value in os.environ.items() if key not in ("PYTHON", "PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        ["bash", str(ROOT / command[0]), *command[1:]],
        cwd=tmp_path,
        env={**kept, "PATH": f"{bare_python}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "typer" in line
    assert ".venv/bin/activate" in line
    assert list(tmp_path.iterdir()) == []


def test_where_everything_is_installed_nothing_is_said():
    done = subprocess.run([sys.executable, "-m", "llava.installation"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert describe_missing([]) is None


def test_what_is_missing_is_named():
    assert ", ".join(NEEDED) in describe_missing(list(NEEDED))
