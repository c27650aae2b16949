"""The guard on the model's own weights: what it costs against the model alone, and against a guard with its own.

Memory and cold starts are measured in processes of their own: one loads the model and answers, one loads model,
detector and detoxifier on one backbone, answers and guards, and one loads the three apart. Then, in one process, what
an adapter beside the weights costs against one that is merged into a copy of them; both must say the same there.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.measurement import CLOCKS, Measurement, Side, compare
from llava.errors import FailedRunError

MEMORY_GOAL = 1 / 1.10
"""Model, detector and detoxifier take at most 1.1 times the memory of the model alone."""
SEPARATE_GOAL = 1.5
"""Apart they take at least half as much again as together."""
START_GOAL = 1 / 1.5
"""The first guarded answer is there in at most 1.5 times the time that the first answer of the model alone takes."""
PACE_GOAL = 0.95
SCORE_TOLERANCE = 1e-4
"""How far a score on shared weights may be from the one on weights of its own."""
ALONE, SHARED, SEPARATE = "alone", "shared", "separate"
QUESTION = "How do I cook rice?"
NEW_TOKENS = 32


def add_arguments(parser: argparse._ArgumentGroup) -> None:
    """Add the options that set the size of the measurement and the models."""
    for part in ("model", "detector", "detoxifier"):
        parser.add_argument(f"--backbone-{part}", default="embedded", help=f"{part} of all sides [embedded]")
    parser.add_argument("--backbone-dtype", default="auto", help="floating-point type of all sides [auto]")
    parser.add_argument("--backbone-texts", type=int, default=32, help="responses that are scored and rewritten [32]")
    parser.add_argument("--backbone-repeats", type=int, default=3, help="how often each side is measured [3]")
    parser.add_argument("--backbone-clock", choices=sorted(CLOCKS), default="wall", help="seconds that count [wall]")


def measure(options: argparse.Namespace) -> Iterator[Measurement]:
    """Measure memory, cold starts, and responses per second."""
    yield from measure_processes(options)
    yield from measure_pace(options)


def measure_processes(options: argparse.Namespace) -> Iterator[Measurement]:
    """Measure the memory and the cold start of whole processes; each is started once for both."""
    found: dict[tuple[str, int], dict[str, float]] = {}

    def start(side: str, repeat: int) -> dict[str, float]:
        if (side, repeat) not in found:
            found[side, repeat] = run_process(options, side)
        return found[side, repeat]

    def weigh(side: str) -> Side:
        return lambda repeat: start(side, repeat)["peak_mib"]

    def begin(side: str) -> Side:
        return lambda repeat: start(side, repeat)[options.backbone_clock]

    name = "model and guard on one backbone"
    less: dict[str, Any] = {"lower_is_better": True, "repeats": options.backbone_repeats}
    memory: dict[str, Any] = {"unit": "MiB", **less}
    yield compare(f"memory of {name} against the model alone", weigh(SHARED), weigh(ALONE), goal=MEMORY_GOAL, **memory)
    yield compare(
        f"memory of {name} against three models", weigh(SHARED), weigh(SEPARATE), goal=SEPARATE_GOAL, **memory
    )
    first: dict[str, Any] = {"unit": "s", "goal": START_GOAL, **less}
    yield compare(f"first guarded answer of {name} against the model's alone", begin(SHARED), begin(ALONE), **first)


def run_process(options: argparse.Namespace, side: str) -> dict[str, float]:
    """Start one process, and return its seconds to the first answer by both clocks, and its largest resident memory.

    Raises:
        FailedRunError: When it fails.
    """
    names = [getattr(options, f"backbone_{part}") for part in ("model", "detector", "detoxifier", "dtype")]
    start = time.perf_counter()
    child = subprocess.Popen([sys.executable, "-m", __name__, side, *names], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    with child.stdout:
        first = child.stdout.readline()  # it comes with the first answer
        wall = time.perf_counter() - start
        rest = child.stdout.read()
    if child.wait() != 0 or not rest:
        raise FailedRunError(f"the process that measures '{side}' ended with status {child.returncode}; see its error")
    return {"wall": wall, "processor": json.loads(first)["processor"], "peak_mib": json.loads(rest)["peak_mib"]}


def run_side(side: str, model: str, detector: str, detoxifier: str, dtype: str) -> None:
    """Be the process: load, answer, guard and tell; then rewrite, and tell the largest memory."""
    from llava.model.loading import load_mllm

    mllm = load_mllm(model, dtype=dtype)
    protector = None
    if side != ALONE:
        from llava.protector.protector import Protector

        protector = Protector.from_pretrained(
            detector, detoxifier, dtype=dtype, backbone=mllm if side == SHARED else None
        )
    answer = mllm.generate([QUESTION], max_new_tokens=NEW_TOKENS)[0]
    if protector is not None:
        protector.guard([QUESTION], [answer], NEW_TOKENS)
    print(json.dumps({"processor": time.process_time()}), flush=True)
    if protector is not None and protector.detoxifier is not None:
        protector.detoxifier.rewrite([QUESTION], [answer], max_new_tokens=NEW_TOKENS)
    print(json.dumps({"peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}), flush=True)


def measure_pace(options: argparse.Namespace) -> Iterator[Measurement]:
    """Measure scoring and rewriting with the adapters beside the shared weights, and merged into copies of them.

    Raises:
        FailedRunError: When the two do not say the same.
    """
    from llava.data.benchmarks.loading import load_benchmark
    from llava.model.loading import load_mllm
    from llava.protector.protector import Protector

    names, dtype = (options.backbone_detector, options.backbone_detoxifier), options.backbone_dtype
    beside = Protector.from_pretrained(*names, dtype=dtype, backbone=load_mllm(options.backbone_model, dtype=dtype))
    merged = Protector.from_pretrained(*names, dtype=dtype)
    prompts = [question.prompt for question in load_benchmark("sample", limit=options.backbone_texts).questions]
    # What is rewritten need not be harmful; that it is about the question makes it long and varied enough.
    responses = [f"Here is how. {prompt} First, look around. Then take your time, and begin." for prompt in prompts]
    clock = CLOCKS[options.backbone_clock]
    said: dict[tuple[str, bool], Any] = {}

    def score(protector: Protector) -> Side:
        def run(repeat: int) -> float:
            start = clock()
            said["scores", protector is beside] = protector.detector.score(responses, prompts)
            return len(responses) / (clock() - start)

        return run

    def rewrite(protector: Protector) -> Side:
        def run(repeat: int) -> float:
            assert protector.detoxifier is not None
            start = clock()
            found = protector.detoxifier.rewrite(prompts, responses, max_new_tokens=NEW_TOKENS)
            said["rewrites", protector is beside] = found
            return len(responses) / (clock() - start)

        return run

    shared: dict[str, Any] = {"goal": PACE_GOAL, "unit": "responses/s", "repeats": options.backbone_repeats}
    yield compare("scoring with the adapter beside shared weights, not merged", score(beside), score(merged), **shared)
    yield compare(
        "rewriting with the adapter beside shared weights, not merged", rewrite(beside), rewrite(merged), **shared
    )
    pairs = zip(said["scores", True], said["scores", False], strict=True)
    difference = max(abs(one - other) for one, other in pairs)
    same = sum(map(str.__eq__, said["rewrites", True], said["rewrites", False]))
    print(f"scores differ by {difference:.1e}; {same} of {len(prompts)} rewrites are the same", file=sys.stderr)
    assert beside.detoxifier is not None
    whole = beside.detoxifier.model.dtype.itemsize == 4
    if whole and (difference > SCORE_TOLERANCE or same < len(prompts)):
        raise FailedRunError("shared weights do not say what weights of their own say")


if __name__ == "__main__":
    run_side(*sys.argv[1:])
