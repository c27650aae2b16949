"""Training in several processes takes the same steps as in one, on the CPU: by launchers, or in forked ranks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.train.ranks import find_free_port, train_in_ranks
from tests.train.samples import write_labelled, write_pairs, write_rewrites

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts"


MODULES = {"train_harm_detector.sh": ("llava.train.harm_detector",), "train_detoxifier.sh": ("llava.train.detoxifier",)}
CONFIGS = "llava/train/configs/llava"
MODULES |= {
    f"{stage}.sh": ("llava.train.llava", "--config", str(ROOT / f"{CONFIGS}_{stage}.yaml"))
    for stage in ("pretrain", "finetune", "finetune_lora")
}
"""Training shell → the module that it runs, and what it puts before the flags."""


def launch(script, tiny_lm, data, output, launcher, processes, *more):
    """Run a training shell by a launcher, or its module in forked ranks (`fork`); return the losses of its steps."""
    flags = [
        *("--base", str(tiny_lm), "--train-data", data, "--output-dir", str(output)),
        *("--learning-rate", "1e-2", "--lora-dropout", "0", "--num-train-epochs", "2", "--logging-steps", "1"),
        *("--disable-tqdm", "true", "--save-strategy", "epoch", "--use-cpu", "true", *more),
    ]
    if launcher == "fork":
        module, *before = MODULES[script]
        train_in_ranks(module, [*before, *flags], processes, output.with_name(f"{output.name}-logs"))
    else:
        run_shell(script, flags, launcher, processes)
    last = max(output.glob("checkpoint-*"), key=lambda path: int(path.name.partition("-")[2]))
    history = json.loads((last / "trainer_state.json").read_text())["log_history"]
    return [entry["loss"] for entry in history if "loss" in entry]


def run_shell(script, flags, launcher, processes):
    """Run a training shell as a user does."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "LAUNCHER": launcher,
        "NUM_PROCESSES": str(processes),
        "MASTER_PORT": find_free_port(),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "DS_ACCELERATOR": "cpu",
        "CUDA_VISIBLE_DEVICES": "",  # two processes may not share a GPU, and DeepSpeed's launcher shows it again
    }
    done = subprocess.run(
        ["bash", str(SCRIPTS / script), *flags],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


class Detector:
    """Trains detectors on the same rows, each into a folder of its own."""

    def __init__(self, tiny_lm, folder):
        self.tiny_lm, self.folder = tiny_lm, folder
        self.known = {}
        self.data = f"{write_labelled(folder / 'labelled.jsonl')},{write_pairs(folder / 'pairs.jsonl')}"

    def losses(self, name, launcher, processes, batch_size, *more):
        common = ("--loss", "bce+pairwise", "--max-length", "64", "--per-device-train-batch-size", str(batch_size))
        output = self.folder / name
        return launch("train_harm_detector.sh", self.tiny_lm, self.data, output, launcher, processes, *common, *more)

    def losses_of_one(self):
        """Return the losses of one process, which the other ways are compared with; it is trained once."""
        if "one" not in self.known:
            self.known["one"] = self.losses("one", "fork", 1, 8)
        return self.known["one"]

    def weights(self, name):
        return load_file(self.folder / name / "adapter_model.safetensors")


@pytest.fixture(scope="module")
def detector(tiny_lm, tmp_path_factory):
    return Detector(tiny_lm, tmp_path_factory.mktemp("detectors"))


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(detector):
    one = detector.losses_of_one()
    accumulated = detector.losses("accumulated", "fork", 1, 2, "--gradient-accumulation-steps", "4")
    two = detector.losses("two", "torchrun", 2, 4)
    assert accumulated == pytest.approx(one, rel=1e-3)
    assert two == pytest.approx(one, rel=1e-3)
    second = detector.weights("two")
    for name, tensor in detector.weights("one").items():
        torch.testing.assert_close(second[name], tensor, rtol=1e-2, atol=1e-3)
    # Held-out rows are dealt out to processes and must come back in their order.
    one_metrics, two_metrics = (
        json.loads((detector.folder / name / "metrics.json").read_text())["overall"] for name in ("one", "two")
    )
    assert two_metrics["n"] == one_metrics["n"]
    assert two_metrics["auroc"] == pytest.approx(one_metrics["auroc"], abs=1e-2)


@pytest.mark.slow
def test_two_detoxifier_processes_count_target_tokens_together(tiny_lm, tmp_path):
    """Processes get different numbers of target tokens; the mean is over all of them, not a mean of means."""
    data = str(write_rewrites(tmp_path / "rewrites.jsonl"))
    more = ("--max-length", "192", "--max-target-tokens", "40")
    one = launch(
        *("train_detoxifier.sh", tiny_lm, data, tmp_path / "1", "fork", 1, *more),
        *("--per-device-train-batch-size", "8"),
    )
    two = launch(
        *("train_detoxifier.sh", tiny_lm, data, tmp_path / "2", "fork", 2, *more),
        *("--per-device-train-batch-size", "4"),
    )
    assert two == pytest.approx(one, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["zero2", "zero3", "zero3_offload", "fsdp"])
def test_sharded_training_takes_the_steps_of_one_process(detector, how):
    one = detector.losses_of_one()
    if how == "fsdp":
        two = detector.losses(how, "fork", 2, 4, "--fsdp", "full_shard", "--base-dtype", "float32")
    else:
        pytest.importorskip("deepspeed")
        launcher = "deepspeed" if how == "zero2" else "fork"
        two = detector.losses(how, launcher, 2, 4, "--deepspeed", str(SCRIPTS / f"{how}.json"))
    assert two == pytest.approx(one, rel=1e-3)
    # Every process holds a part; what is written is whole.
    second = detector.weights(how)
    for name, tensor in detector.weights("one").items():
        torch.testing.assert_close(second[name], tensor, rtol=1e-2, atol=1e-3)


LIBRARY_CALLS = """
import os, sys, time
from llava.train.harm_detector import main

for number in range(2):
    if os.environ["RANK"] == "0":
        time.sleep(3 * number)  # the other process is at its second training while this one is not
    output = os.path.join(sys.argv[1], str(number))
    assert main([*sys.argv[2:], "--output-dir", output]) == 0
threads = [open(f"/proc/self/task/{task}/comm").read() for task in os.listdir("/proc/self/task")]
assert not any("gloo" in name for name in threads), threads
"""


@pytest.mark.slow
def test_library_calls_leave_no_thread_of_their_process_group(tiny_lm, tmp_path):
    """Such a thread may abort the process that called us, at its end."""
    script = tmp_path / "trainings.py"
    script.write_text(LIBRARY_CALLS)
    flags = [
        *("--base", str(tiny_lm), "--train-data", str(write_labelled(tmp_path / "labelled.jsonl"))),
        *("--max-length", "64", "--max-steps", "2", "--use-cpu", "true", "--save-strategy", "no"),
    ]
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [*torchrun, str(script), str(tmp_path / "trained"), *flags],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "trained" / "1" / "adapter_model.safetensors").is_file()
