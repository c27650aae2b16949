import json
import os
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
LLAVA_SHELLS = {
    "pretrain.sh": "llava_pretrain.yaml",
    "finetune.sh": "llava_finetune.yaml",
    "finetune_lora.sh": "llava_finetune_lora.yaml",
}
SHELLS = ["launch.sh", "train_harm_detector.sh", "train_detoxifier.sh", *LLAVA_SHELLS]
ZERO = ["zero2.json", "zero3.json", "zero3_offload.json"]


@pytest.fixture
def fake_tools(tmp_path):
    """A folder whose launchers print how they were called; what is tested is the shell around them."""
    for name in ("python", "torchrun", "accelerate", "deepspeed"):
        (tmp_path / name).write_text(f'#!/bin/sh\necho "{name} $*"\n')
        (tmp_path / name).chmod(0o755)
    return tmp_path


def call(script, tools, *arguments, **environment):
    variables = {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", **environment}
    return subprocess.run(
        ["bash", str(SCRIPTS / script), *arguments], env=variables, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "python -m llava.train.harm_detector --x 1 2"),
        (
            {"LAUNCHER": "torchrun", "NUM_PROCESSES": "2"},
            "torchrun --standalone --nproc_per_node 2 -m llava.train.harm_detector --x 1 2",
        ),
        ({"LAUNCHER": "torchrun"}, "torchrun --standalone --nproc_per_node auto -m llava.train.harm_detector --x 1 2"),
        ({"LAUNCHER": "accelerate"}, "accelerate launch -m llava.train.harm_detector --x 1 2"),
        (
            {"LAUNCHER": "deepspeed", "NUM_PROCESSES": "8"},
            "deepspeed --num_gpus 8 --module llava.train.harm_detector --x 1 2",
        ),
        (
            {"LAUNCHER": "deepspeed", "MASTER_PORT": "29501"},
            "deepspeed --master_port 29501 --module llava.train.harm_detector --x 1 2",
        ),
        (
            {"LAUNCHER": "accelerate", "MASTER_PORT": "29501"},
            "accelerate launch --main_process_port 29501 -m llava.train.harm_detector --x 1 2",
        ),
    ],
)
def test_launchers(fake_tools, environment, expected):
    done = call("train_harm_detector.sh", fake_tools, "--x", "1 2", **environment)
    assert done.stdout.strip() == expected


@pytest.mark.parametrize("name", ["harm_detector", "detoxifier"])
def test_a_bare_shell_asks_for_the_papers_recipe(fake_tools, name):
    assert call(f"train_{name}.sh", fake_tools).stdout.strip() == f"python -m llava.train.{name} --paper"


def test_arguments_pass_unsplit(fake_tools):
    (fake_tools / "python").write_text('#!/bin/sh\nprintf "%s|" "$@"\n')
    done = call("train_detoxifier.sh", fake_tools, "--train-data", "a file.jsonl")
    assert done.stdout == "-m|llava.train.detoxifier|--train-data|a file.jsonl|"


@pytest.mark.parametrize(("script", "recipe"), LLAVA_SHELLS.items())
def test_llava_shells_bring_their_recipe(fake_tools, script, recipe):
    """Flags of the user come last, so that they win; another --config replaces the recipe."""
    words = call(script, fake_tools, "--learning-rate", "1").stdout.split()
    assert words[:4] == ["python", "-m", "llava.train.llava", "--config"]
    assert Path(words[4]).resolve() == SCRIPTS.parent / "llava" / "train" / "configs" / recipe
    assert words[5:] == ["--learning-rate", "1"]


def test_an_unknown_launcher_is_refused(fake_tools):
    done = call("train_detoxifier.sh", fake_tools, LAUNCHER="srun")
    assert done.returncode == 2
    assert done.stderr.startswith("error: LAUNCHER is srun")


@pytest.mark.parametrize("name", SHELLS)
def test_shells_are_thin(name):
    lines = (SCRIPTS / name).read_text().splitlines()
    assert len(lines) <= 15
    assert "set -euo pipefail" in lines


@pytest.mark.parametrize("name", ZERO)
def test_zero_configs_leave_everything_else_to_the_flags(name):
    config = json.loads((SCRIPTS / name).read_text())
    assert config["zero_optimization"]["stage"] == int(name[4])
    for key in (
        "train_batch_size",
        "train_micro_batch_size_per_gpu",
        "gradient_accumulation_steps",
        "gradient_clipping",
    ):
        assert config[key] == "auto"
