"""Training in several processes takes the same steps as in one. Real launchers, real processes, on the CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.train.rows import write_labelled, write_pairs, write_rewrites

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts"


def launch(script, tiny_lm, data, output, launcher, processes, *more):
    """Run a training shell and return the losses of its steps."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "LAUNCHER": launcher,
        "NUM_PROCESSES": str(processes),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "DS_ACCELERATOR": "cpu",
    }
    flags = [
        *("--base", str(tiny_lm), "--train-data", data, "--output-dir", str(output)),
        *("--learning-rate", "1e-2", "--lora-dropout", "0", "--num-train-epochs", "2", "--logging-steps", "1"),
        *("--disable-tqdm", "true", "--save-strategy", "epoch", *more),
    ]
    done = subprocess.run(
        ["bash", str(SCRIPTS / script), *flags],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    last = max(output.glob("checkpoint-*"), key=lambda path: int(path.name.partition("-")[2]))
    history = json.loads((last / "trainer_state.json").read_text())["log_history"]
    return [entry["loss"] for entry in history if "loss" in entry]


def detector_data(tmp_path):
    return f"{write_labelled(tmp_path / 'labelled.jsonl')},{write_pairs(tmp_path / 'pairs.jsonl')}"


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(tiny_lm, tmp_path):
    data = detector_data(tmp_path)
    more = ("--loss", "bce+pairwise", "--max-length", "64")
    one = launch(
        "train_harm_detector.sh",
        tiny_lm,
        data,
        tmp_path / "1",
        "python",
        1,
        *more,
        "--per-device-train-batch-size",
        "8",
    )
    accumulated = launch(
        *("train_harm_detector.sh", tiny_lm, data, tmp_path / "a", "python", 1, *more),
        *("--per-device-train-batch-size", "2", "--gradient-accumulation-steps", "4"),
    )
    two = launch(
        *("train_harm_detector.sh", tiny_lm, data, tmp_path / "2", "torchrun", 2, *more),
        *("--per-device-train-batch-size", "4"),
    )
    assert accumulated == pytest.approx(one, rel=1e-3)
    assert two == pytest.approx(one, rel=1e-3)
    first, second = (load_file(tmp_path / name / "adapter_model.safetensors") for name in "12")
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, rtol=1e-2, atol=1e-3)
    # Held-out rows are dealt out to processes and must come back in their order.
    one_metrics, two_metrics = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in "12")
    assert two_metrics["overall"]["n"] == one_metrics["overall"]["n"]
    assert two_metrics["overall"]["auroc"] == pytest.approx(one_metrics["overall"]["auroc"], abs=1e-2)


@pytest.mark.slow
def test_two_detoxifier_processes_count_target_tokens_together(tiny_lm, tmp_path):
    """Processes get different numbers of target tokens; the mean is over all of them, not a mean of means."""
    data = str(write_rewrites(tmp_path / "rewrites.jsonl"))
    more = ("--max-length", "192", "--max-target-tokens", "40")
    one = launch(
        *("train_detoxifier.sh", tiny_lm, data, tmp_path / "1", "python", 1, *more),
        *("--per-device-train-batch-size", "8"),
    )
    two = launch(
        *("train_detoxifier.sh", tiny_lm, data, tmp_path / "2", "torchrun", 2, *more),
        *("--per-device-train-batch-size", "4"),
    )
    assert two == pytest.approx(one, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["zero2", "zero3"])
def test_deepspeed_takes_the_steps_of_one_process(tiny_lm, tmp_path, stage):
    pytest.importorskip("deepspeed")
    data = detector_data(tmp_path)
    more = ("--loss", "bce+pairwise", "--max-length", "64")
    one = launch(
        "train_harm_detector.sh",
        tiny_lm,
        data,
        tmp_path / "1",
        "python",
        1,
        *more,
        "--per-device-train-batch-size",
        "8",
    )
    config = ("--deepspeed", str(SCRIPTS / f"{stage}.json"), "--per-device-train-batch-size", "4")
    two = launch("train_harm_detector.sh", tiny_lm, data, tmp_path / "2", "deepspeed", 2, *more, *config)
    assert two == pytest.approx(one, rel=1e-3)
    shapes = [
        {name: tensor.shape for name, tensor in load_file(tmp_path / run / "adapter_model.safetensors").items()}
        for run in "12"
    ]
    assert shapes[0] == shapes[1]
