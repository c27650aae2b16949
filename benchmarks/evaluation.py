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

GOAL = 6.0


def add_arguments(parser: argparse._ArgumentGroup) -> None:
    """Add the options that set the size of the measurement and the models."""
    parser.add_argument("--evaluation-questions", type=int, default=128, help="questions of the sample benchmark [128]")
    parser.add_argument("--evaluation-new-tokens", type=int, default=48, help="longest answer, in tokens [48]")
    parser.add_argument("--evaluation-batch-size", default="32", help="questions a batch on our side, or auto [32]")
    parser.add_argument("--evaluation-repeats", type=int, default=3, help="how often each side is measured [3]")
    parser.add_argument("--evaluation-dtype", default="auto", help="floating-point type of both sides [auto]")
    for part in ("model", "detector", "detoxifier"):
        parser.add_argument(f"--evaluation-{part}", default="embedded", help=f"{part} of both sides [embedded]")


def measure(options: argparse.Namespace) -> Iterator[Measurement]:
    """Measure questions per second: generate, detect and, where flagged, detoxify."""
    size = options.evaluation_questions
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(options, Path(folder))
        yield compare(
            "evaluation throughput",
            lambda repeat: bench.run_batched(size),
            lambda repeat: bench.run_one_by_one(size),
            goal=GOAL,
            unit="questions/s",
            repeats=options.evaluation_repeats,
        )


class Bench:
    """The two ways to ask the same questions; each returns questions per second."""

    def __init__(self, options: argparse.Namespace, folder: Path):
        """Load the models of the side that asks one by one.

        Args:
            options: Those of this benchmark.
            folder: Where runs of the other side are written.
        """
        from llava.model.embedded.stack import resolve_mllm
        from llava.model.loading import load_mllm
        from llava.protector.detector import HarmDetector
        from llava.protector.detoxifier import Detoxifier

        self.options = options
        self.folder = folder
        self.runs = 0
        dtype = options.evaluation_dtype
        self.model = load_mllm(resolve_mllm(options.evaluation_model), dtype=dtype)
        self.detector = HarmDetector.from_pretrained(options.evaluation_detector, dtype=dtype)
        self.detoxifier = Detoxifier.from_pretrained(options.evaluation_detoxifier, dtype=dtype)

    def run_one_by_one(self, size: int) -> float:
        """Ask the first `size` questions one after another."""
        from llava.data.benchmarks.loading import load_benchmark
        from llava.data.images import open_image

        questions = load_benchmark("sample", limit=size).questions
        tokens = self.options.evaluation_new_tokens
        start = time.perf_counter()
        for question in questions:
            image = open_image(question.image) if question.image else None
            response = self.model.generate([question.prompt], [image], max_new_tokens=tokens)[0]
            harm_score = self.detector.score([response], [question.prompt])[0]
            if harm_score >= self.detector.threshold:
                self.detoxifier.rewrite([question.prompt], [response], max_new_tokens=tokens)
        return len(questions) / (time.perf_counter() - start)

    def run_batched(self, size: int) -> float:
        """Ask them in one run in one process, without the time of loading its models."""
        from llava.eval.run.runner import GenerationSettings, run_generation

        options, batch = self.options, self.options.evaluation_batch_size
        self.runs += 1
        settings = GenerationSettings(
            model=options.evaluation_model,
            output=self.folder / f"run-{self.runs}",
            benchmark="sample",
            limit=size,
            detector=options.evaluation_detector,
            detoxifier=options.evaluation_detoxifier,
            max_new_tokens=options.evaluation_new_tokens,
            batch_size=batch if batch == "auto" else int(batch),
            num_processes=1,
            dtype=options.evaluation_dtype,
        )
        start = time.perf_counter()
        run_generation(settings)
        seconds = time.perf_counter() - start
        run = json.loads((Path(settings.output) / "run.json").read_text())
        return run["fingerprint"]["questions"]["count"] / (seconds - run["launches"][-1]["load_seconds"])
