"""Detection throughput: many responses in one call against one response after another, the way scripts do it.

Both sides score the same responses with the same network, device, dtype and number of threads, and their scores are
compared. Loading is not part of either time; preparing the texts is part of both. The answers have uneven lengths, as
real ones have. In one measurement each question has several answers, as where models or samples are compared; in the
other each has one. Then `mllm-protector detect` on a file of such rows: two processes against one, one thread each.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.measurement import CLOCKS, Measurement, compare
from benchmarks.training import WORDS
from llava.errors import InputError

GOAL = 3.0
PROCESSES_GOAL = 1.8
TOLERANCE = 1e-5
"""How far the scores of both sides may differ in single precision."""


def add_arguments(parser: argparse._ArgumentGroup) -> None:
    """Add the options that set the size of the measurement and the detector."""
    parser.add_argument("--detection-rows", type=int, default=128, help="responses that are scored [128]")
    parser.add_argument("--detection-answers", type=int, default=8, help="answers a question where it has several [8]")
    parser.add_argument("--detection-detector", default="embedded", help="detector of both sides [embedded]")
    parser.add_argument("--detection-dtype", default="float32", help="floating-point type of both sides [float32]")
    parser.add_argument("--detection-threads", type=int, nargs="+", default=[1, 2], help="CPU threads, in turn [1 2]")
    parser.add_argument("--detection-file-rows", type=int, default=512, help="rows of the file for two processes [512]")
    parser.add_argument("--detection-repeats", type=int, default=3, help="how often each side is measured [3]")
    parser.add_argument("--detection-clock", choices=sorted(CLOCKS), default="wall", help="seconds that count [wall]")


def measure(options: argparse.Namespace) -> Iterator[Measurement]:
    """Measure responses per second."""
    from llava.eval.run.worker import limit_threads
    from llava.protector.detector import HarmDetector

    if not 1 < options.detection_answers <= options.detection_rows:
        raise InputError(
            f"--detection-answers is {options.detection_answers}; give 2 to --detection-rows ({options.detection_rows})"
        )
    detector = HarmDetector.from_pretrained(options.detection_detector, dtype=options.detection_dtype)
    for threads in options.detection_threads:
        for answers in (options.detection_answers, 1):
            bench = Bench(detector, make_rows(options.detection_rows, answers), CLOCKS[options.detection_clock])
            with limit_threads(threads):
                yield compare(
                    f"detection against one by one, {answers} answer{'s' * (answers > 1)} a question, "
                    f"{threads} thread{'s' * (threads > 1)}",
                    bench.run_together,
                    bench.run_one_by_one,
                    goal=GOAL,
                    unit="responses/s",
                    repeats=options.detection_repeats,
                )
    if options.detection_file_rows:
        yield measure_processes(options)


def measure_processes(options: argparse.Namespace) -> Measurement:
    """Measure rows per second of two processes against one."""
    from llava.eval.detection.runner import run_detection
    from llava.eval.detection.settings import DetectionSettings
    from llava.files import write_jsonl

    rows = make_rows(options.detection_file_rows, options.detection_answers)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_jsonl(folder / "in.jsonl", ({"prompt": prompt, "response": response} for prompt, response in rows))

        def run(processes: int) -> float:
            settings = DetectionSettings(
                input=folder / "in.jsonl",
                output=folder / f"out-{processes}.jsonl",
                detector=options.detection_detector,
                dtype=options.detection_dtype,
                num_processes=processes,
                threads=1,
            )
            return len(rows) / run_detection(settings).seconds

        return compare(
            "detect in two processes against one",
            lambda repeat: run(2),
            lambda repeat: run(1),
            goal=PROCESSES_GOAL,
            unit="rows/s",
            repeats=options.detection_repeats,
        )


def make_rows(count: int, answers: int) -> list[tuple[str, str]]:
    """Return (prompt, response) texts; each prompt has `answers` responses, and their order is by chance.

    Lengths are those of `benchmarks/training.py`: log-normal, the median 12 words of a question and 30 of an answer.
    """
    generator = random.Random(0)

    def text(median: int) -> str:
        return " ".join(generator.choices(WORDS, k=max(3, int(generator.lognormvariate(0, 1) * median))))

    questions = [text(12) for _ in range(-(-count // answers))]
    rows = [(questions[place // answers], text(30)) for place in range(count)]
    generator.shuffle(rows)
    return rows


class Bench:
    """The two ways to score the same rows; each returns responses per second."""

    def __init__(self, detector: Any, rows: list[tuple[str, str]], clock: Any):
        """Take the detector, the rows, and what tells the time."""
        self.detector = detector
        self.rows = rows
        self.clock = clock
        self.scores: list[float] = []
        detector.score(["Warm."] * 2, ["Is everything warm?"] * 2)
        detector.score([response for _, response in rows[:8]], [rows[0][0]] * len(rows[:8]))

    def run_together(self, repeat: int) -> float:
        """Score all rows in one call."""
        start = self.clock()
        scores = self.detector.score([response for _, response in self.rows], [prompt for prompt, _ in self.rows])
        seconds = self.clock() - start
        self.check(scores)
        return len(self.rows) / seconds

    def run_one_by_one(self, repeat: int) -> float:
        """Score one row after another: tokenise it, run the network on it alone, take the worst of its windows."""
        import torch

        from llava.protector.classifier import pad_windows
        from llava.protector.text import encode_readings

        detector, scores = self.detector, []
        start = self.clock()
        for prompt, response in self.rows:
            logits = []
            for window in encode_readings(detector.tokenizer, detector.config, prompt, response):
                batch = pad_windows([window], 0)
                with torch.inference_mode():
                    output = detector.classifier(
                        batch["input_ids"].to(detector.classifier.device),
                        response_mask=batch["response_mask"].to(detector.classifier.device),
                    )
                logits.append(output.logits.item() / detector.config.temperature)
            harm = torch.tensor(logits).sigmoid()
            scores.append(float((harm if detector.config.positive_label == "harmful" else 1 - harm).max()))
        seconds = self.clock() - start
        self.check(scores)
        return len(self.rows) / seconds

    def check(self, scores: list[float]) -> None:
        """Compare with the scores of the run before.

        Raises:
            RuntimeError: When one differs; in half precision each pass rounds in its own way, and nothing is compared.
        """
        import torch

        if self.scores and self.detector.classifier.backbone.dtype is torch.float32:
            difference = max(abs(a - b) for a, b in zip(self.scores, scores, strict=True))
            if not difference <= TOLERANCE:
                raise RuntimeError(f"the scores of the two sides differ by {difference:.1e}")
        self.scores = scores
