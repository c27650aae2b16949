"""Start-up in a fresh process: how long a command and an import take, and the detector to its first score.

Commands are held against the time that they may take, and against importing torch and transformers, which is what a
command pays that imports its libraries at the top. The detector is held against the plain way to use the same weights:
`transformers` loads the whole base as a classifier, `peft` puts the adapter on, and one text goes through. Every
figure is that of a whole process, from start to end.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

from benchmarks.measurement import Measurement, compare

HELP_SECONDS, IMPORT_SECONDS = 0.5, 0.1
"""What `mllm-protector --help` and `import llava` may take."""
LIBRARIES_GOAL = 5.0
WALL, PROCESSOR = "wall", "processor"
CLOCKS = (WALL, PROCESSOR)
"""Which seconds count: processor time where the machine is busy with other things, all threads together."""
TEXTS = ("How is bread made?", "Mix flour, water, salt and yeast, wait, and bake it.")
HELP = "from llava.cli import run; run()"
IMPORT = "import llava"
LIBRARIES = "import torch, transformers"
PEAK = """
import resource, sys
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
"""
"""The most memory that a process has held, in bytes."""
OURS = """
import sys
from llava import HarmDetector
detector = HarmDetector.from_pretrained(sys.argv[1])
detector.score([sys.argv[3]], [sys.argv[2]])
"""
PLAIN = """
import sys, torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
base, adapter = sys.argv[3:]
model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, dtype=torch.float32)
if adapter:
    from peft import PeftModel
    model = PeftModel.from_pretrained(model, adapter).merge_and_unload()
tokenizer = AutoTokenizer.from_pretrained(base)
with torch.inference_mode():
    model(**tokenizer(sys.argv[1] + sys.argv[2], return_tensors="pt"))
"""


class Process(NamedTuple):
    """What a process took."""

    seconds: float
    """From its start to its end, or what its threads computed."""
    output: str
    """What it printed."""


def add_arguments(parser: argparse._ArgumentGroup) -> None:
    """Add the options that set the repeats and the detector."""
    parser.add_argument("--startup-repeats", type=int, default=5, help="how often each side is measured [5]")
    parser.add_argument("--startup-clock", choices=CLOCKS, default=WALL, help="seconds that count [wall]")
    parser.add_argument("--startup-detector", default="embedded", help="detector that starts [embedded]")


def measure(options: argparse.Namespace) -> Iterator[Measurement]:
    """Measure commands and imports, then the detector's first score and its memory."""
    repeats, clock = options.startup_repeats, options.startup_clock
    run_python(HELP, "--help")  # writes the byte code of a fresh checkout
    yield compare(
        "`mllm-protector --help` against the 0.5 s that it may take",
        lambda repeat: run_python(HELP, "--help", clock=clock).seconds,
        lambda repeat: HELP_SECONDS,
        goal=1.0,
        unit="s",
        repeats=repeats,
        lower_is_better=True,
    )
    yield compare(
        "`mllm-protector --help` against importing torch and transformers",
        lambda repeat: run_python(HELP, "--help", clock=clock).seconds,
        lambda repeat: run_python(LIBRARIES, clock=clock).seconds,
        goal=LIBRARIES_GOAL,
        unit="s",
        repeats=repeats,
        lower_is_better=True,
    )
    yield compare(
        "`import llava` against the 0.1 s that it may take",
        lambda repeat: time_import(clock),
        lambda repeat: IMPORT_SECONDS,
        goal=1.0,
        unit="s",
        repeats=repeats,
        lower_is_better=True,
    )
    yield from measure_detector(options.startup_detector, repeats, clock)


def measure_detector(detector: str, repeats: int, clock: str = WALL) -> Iterator[Measurement]:
    """Measure process start to first score, and the most memory held on the way."""
    from llava.protector.checkpoints import open_checkpoint

    checkpoint = open_checkpoint("detector", detector)  # also builds what the shipped one stands on
    plain = (*TEXTS, str(checkpoint.model), str(checkpoint.adapter or ""))
    seconds: dict[str, list[float]] = {"ours": [], "plain": []}

    def start(side: str, script: str, *arguments: str) -> float:
        process = run_python(script + PEAK, *arguments, clock=clock)
        seconds[side].append(process.seconds)
        return int(process.output.split()[-1]) / 2**20

    memory = compare(
        "memory of a process with the detector against transformers and peft",
        lambda repeat: start("ours", OURS, detector, *TEXTS),
        lambda repeat: start("plain", PLAIN, *plain),
        goal=1.0,
        unit="MiB",
        repeats=repeats,
        lower_is_better=True,
    )
    yield compare(
        "cold start to the detector's first score against transformers and peft",
        lambda repeat: seconds["ours"][repeat],
        lambda repeat: seconds["plain"][repeat],
        goal=1.0,
        unit="s",
        repeats=repeats,
        lower_is_better=True,
    )
    yield memory


def run_python(script: str, *arguments: str, clock: str = WALL) -> Process:
    """Run a script in a new interpreter.

    Args:
        script: What it runs.
        arguments: What the script finds in `sys.argv`.
        clock: Which seconds are counted.

    Raises:
        RuntimeError: When it fails, with the end of what it said.
    """
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    start = read_clock(clock)
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, env=environment, check=False
    )
    seconds = read_clock(clock) - start
    if done.returncode != 0:
        raise RuntimeError(f"a fresh process failed: {' '.join(done.stderr.split())[-300:]}")
    return Process(seconds, done.stdout)


def read_clock(clock: str) -> float:
    """Return the seconds of a clock: those of the wall, or those that ended child processes have computed."""
    if clock == WALL:
        return time.perf_counter()
    times = os.times()
    return times.children_user + times.children_system


def time_import(clock: str = WALL) -> float:
    """Return the seconds that `import llava` adds to a process that imports nothing."""
    name = "perf_counter" if clock == WALL else "process_time"
    script = f"from time import {name}; start = {name}(); {IMPORT}; print({name}() - start)"
    return float(run_python(script).output)
