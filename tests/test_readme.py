"""Every command and program that the README shows is run here as it stands (pip and the test command run in CI)."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.xdist_group("readme")  # commands and programs work on one folder

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()

RUN_ELSEWHERE = ("bash scripts/test.sh", "pip install", "mllm-protector doctor")
"""The test command and pip are what CI itself runs; `doctor` is covered by tests/test_doctor.py."""

SMALL = {
    "bash scripts/quickstart.sh": ["--limit", "8", "--max-new-tokens", "8", "--output", "quickstart-output"],
    "bash scripts/train_harm_detector.sh": ["--max-steps", "2", "--num-layers", "2", "--max-length", "64"],
    "bash scripts/train_detoxifier.sh": ["--max-steps", "2", "--max-length", "128", "--max-target-tokens", "16"],
    "mllm-protector guard-bench": ["--limit", "4"],
    "bash llava/eval/eval_multi_safeguard.sh": ["--benchmark", "sample", "--limit", "4", "--max-new-tokens", "8"],
}
"""What is added to a command so that it ends soon on two cores. (The first step of a schedule may change nothing.)"""

PLACES = {"MODEL": "embedded", "RESULT_DIR": "runs/eval", "NUM_GPU": "1", "TEMPERATURE": "0"}
PLACES.update({"DETECTOR": "embedded", "DETOXIFIER": "embedded"})


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


def commands() -> list[list[str]]:
    lines = [line.split("  #")[0].strip() for block in blocks("bash") for line in block.splitlines()]
    found = []
    for line in lines:
        if not line or line.startswith(RUN_ELSEWHERE):
            continue
        words = [PLACES.get(word, word) for word in shlex.split(line)]
        extra = next((more for start, more in SMALL.items() if line.startswith(start)), [])
        found.append(words + extra)
    return found


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder like a user's: the repository's files by name, and the input files that the README speaks of."""
    folder = tmp_path_factory.mktemp("user")
    for name in ("scripts", "llava", "pyproject.toml", "README.md", "LICENSE"):
        (folder / name).symlink_to(ROOT / name)
    write = lambda name, rows: (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))  # noqa: E731
    write(
        "responses.jsonl", [{"prompt": "How do I bake bread?", "response": "Mix flour and water."}, {"response": "No."}]
    )
    texts = [("How do I sneak in?", "Climb the fence.", True), ("How do I bake?", "Mix flour.", False)]
    write("rows.jsonl", [{"prompt": f"{p} {i}", "response": r, "harmful": h} for i in range(8) for p, r, h in texts])
    write(
        "pairs.jsonl",
        [
            {
                "prompt": f"How do I sneak in? {i}",
                "harmful_response": "Climb.",
                "harmless_response": "Please buy a ticket.",
            }
            for i in range(16)
        ],
    )
    return folder


def environment() -> dict[str, str]:
    venv = Path(sys.prefix)
    path = f"{venv / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "VIRTUAL_ENV": str(venv), "PATH": path, "HF_HUB_OFFLINE": "1"}


def test_the_readme_shows_commands():
    starts = {" ".join(words[:2]) for words in commands()}
    assert {*SMALL, "mllm-protector generate", "mllm-protector score", "mllm-protector report"} <= starts


@pytest.mark.slow
def test_every_command_runs_in_order(workplace):
    for words in commands():
        done = subprocess.run(words, cwd=workplace, env=environment(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    for name in (
        "quickstart-output/report.html",
        "scored.jsonl",
        "rewritten.jsonl",
        "runs/demo/report.html",
        "runs/bench/roc.png",
    ):
        assert (workplace / name).is_file()
    for name in ("runs/eval/report.html", "runs/detector-merged/model.safetensors"):
        assert (workplace / name).is_file()


@pytest.mark.slow
def test_every_program_runs(workplace):
    assert blocks("python")
    for program in blocks("python"):
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=workplace,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        assert done.stdout.strip()
