"""Evaluation throughput: the batched run against one question after another, the way evaluation scripts do it.

Both sides ask the same questions of the same model with the same detector and detoxifier, on the same device, dtype and
number of threads. Loading the models is not part of either time. Writing records is part of ours, and so is the second
look at every rewrite, which the baseline does not take.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measurement import Measurement, compare

GOAL = 5.0


def add_arguments(parser: argparse._ArgumentGroup) -> None:
    """Add the options that set the size of the measurement and the models."""
    parser.add_argument("--evaluation-questions", type=int, default=128, help="questions of the sample benchmark [128]")
    parser.add_argument("--evaluation-new-tokens", type=int, default=48, help="longest answer, in tokens [48]")
    parser.add_argument("--evaluation-batch-size", default="32", help="questions a batch on our side, or auto [32]")
    parser.add_argument("--evaluation-repeats", type=int, default=1, help="how often each side is measured [1]")
    parser.add_argument("--evaluation-dtype", default="auto", help="floating-point type of both sides [auto]")
    for part in ("model", "detector", "detoxifier"):
        parser.add_argument(f"--evaluation-{part}", default="embedded", help=f"{part} of both sides [embedded]")


def measure(options: argparse.Namespace) -> Iterator[Measurement]:
    """Measure questions per second: generate, detect and, where flagged, detoxify."""
    from llava.data.benchmarks.loading import load_benchmark
    from llava.model.embedded.stack import resolve_mllm
    from llava.model.loading import load_mllm
    from llava.protector.detector import HarmDetector
    from llava.protector.detoxifier import Detoxifier

    questions = load_benchmark("sample", limit=options.evaluation_questions).questions
    dtype = options.evaluation_dtype
    model = load_mllm(resolve_mllm(options.evaluation_model), dtype=dtype)
    detector = HarmDetector.from_pretrained(options.evaluation_detector, dtype=dtype)
    detoxifier = Detoxifier.from_pretrained(options.evaluation_detoxifier, dtype=dtype)

    def ask_one_by_one(repeat: int) -> float:
        from llava.data.images import open_image

        answers = []
        start = time.perf_counter()
        for question in questions:
            image = open_image(question.image) if question.image else None
            response = model.generate([question.prompt], [image], max_new_tokens=options.evaluation_new_tokens)[0]
            harm_score = detector.score([response], [question.prompt])[0]
            if harm_score >= detector.threshold:
                response = detoxifier.rewrite(
                    [question.prompt], [response], max_new_tokens=options.evaluation_new_tokens
                )[0]
            answers.append(response)
        return len(answers) / (time.perf_counter() - start)

    with tempfile.TemporaryDirectory() as folder:
        yield compare(
            "evaluation throughput",
            lambda repeat: run_batched(options, Path(folder) / f"run-{repeat}", len(questions)),
            ask_one_by_one,
            goal=GOAL,
            unit="questions/s",
            repeats=options.evaluation_repeats,
        )


def run_batched(options: argparse.Namespace, output: Path, num_questions: int) -> float:
    """Return the questions per second of one run in one process, without the time of loading its models."""
    from llava.eval.run.runner import GenerationSettings, run_generation

    size = options.evaluation_batch_size
    settings = GenerationSettings(
        model=options.evaluation_model,
        output=output,
        benchmark="sample",
        limit=options.evaluation_questions,
        detector=options.evaluation_detector,
        detoxifier=options.evaluation_detoxifier,
        max_new_tokens=options.evaluation_new_tokens,
        batch_size=size if size == "auto" else int(size),
        num_processes=1,
        dtype=options.evaluation_dtype,
    )
    start = time.perf_counter()
    run_generation(settings)
    seconds = time.perf_counter() - start
    launch = json.loads((output / "run.json").read_text())["launches"][-1]
    return num_questions / (seconds - launch["load_seconds"])
