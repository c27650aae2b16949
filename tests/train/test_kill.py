"""A training process that is killed, and the same command again."""

import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from llava.train.base import newest_checkpoint
from tests.train.samples import write_labelled

SECONDS = 240


def start(tiny_lm, data, output):
    """Start the one command of this test, which has --resume from the start."""
    command = [
        *(sys.executable, "-m", "llava.train.harm_detector", "--base", str(tiny_lm), "--train-data", str(data)),
        *("--output-dir", str(output), "--max-length", "64", "--learning-rate", "1e-2", "--lora-dropout", "0.2"),
        *("--num-train-epochs", "12", "--per-device-train-batch-size", "4", "--disable-tqdm", "true"),
        *("--save-strategy", "steps", "--save-steps", "5", "--save-total-limit", "99", "--resume"),
    ]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def finish(process):
    _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, err[-2000:]


@pytest.mark.slow
def test_the_same_command_goes_on_after_sigkill(tiny_lm, tmp_path):
    """Killed at some moment after its first checkpoint, a run ends at the weights and figures of an unbroken one."""
    data = write_labelled(tmp_path / "rows.jsonl", 80)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process = start(tiny_lm, data, killed)
    try:
        deadline = time.monotonic() + SECONDS
        # Steps are a few milliseconds: looking again at once keeps the kill far from the end of the run.
        while not (killed.is_dir() and newest_checkpoint(killed)):
            assert process.poll() is None, process.stderr.read()[-2000:]
            assert time.monotonic() < deadline, "no checkpoint appeared"
            time.sleep(0.01)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (killed / "metrics.json").exists()
    assert not (killed / "adapter_model.safetensors").exists()
    states = {path: path.stat().st_mtime_ns for path in killed.glob("checkpoint-*/trainer_state.json")}
    last = newest_checkpoint(killed) / "trainer_state.json"

    finish(start(tiny_lm, data, killed))
    # Its checkpoint was gone on from: a fresh start would have written it again.
    assert last.stat().st_mtime_ns == states[last]
    finish(start(tiny_lm, data, whole))
    assert {path.name for path in killed.iterdir()} == {path.name for path in whole.iterdir()}
    assert (killed / "metrics.json").read_text() == (whole / "metrics.json").read_text()
    expected = load_file(whole / "adapter_model.safetensors")
    found = load_file(killed / "adapter_model.safetensors")
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-7)
