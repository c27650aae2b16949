"""How costs grow: with the length of a response, the size of a batch, the number of questions.

The time of both sides is measured at several sizes, and the exponent b of time = a · size^b fitted by least squares
over the logarithms. 1 means that twice as much takes twice as long, 2 four times as long, 0 no longer than before.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.measurement import Measurement, Side
from llava.errors import InputError

LEAST_SIZES = 4
"""A slope through fewer points says little."""
LEAST_TOKENS = 16
RESPONSE_TOKENS = 64
"""Tokens of each response of a batch."""
QUESTION = "How is bread made?"


class PowerLaw(NamedTuple):
    """cost = factor · size^exponent."""

    exponent: float
    """Slope over the logarithms."""
    factor: float
    """Cost at size 1, in the unit of the costs."""
    r_squared: float
    """Share of the logarithms' variance that the line explains, 1 = all of it."""


def fit_power_law(sizes: Sequence[float], costs: Sequence[float]) -> PowerLaw:
    """Fit a power law by least squares over the logarithms.

    Args:
        sizes: Sizes, above 0, not all alike.
        costs: Cost at each, above 0.

    Example:
        >>> law = fit_power_law([1, 2, 4, 8], [3, 12, 48, 192])
        >>> round(law.exponent, 6), round(law.factor, 6), round(law.r_squared, 6)
        (2.0, 3.0, 1.0)
    """
    x, y = [math.log(size) for size in sizes], [math.log(cost) for cost in costs]
    mean_x, mean_y = statistics.fmean(x), statistics.fmean(y)
    exponent = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / sum((a - mean_x) ** 2 for a in x)
    start = mean_y - exponent * mean_x
    left = sum((b - start - exponent * a) ** 2 for a, b in zip(x, y, strict=True))
    spread = sum((b - mean_y) ** 2 for b in y)
    return PowerLaw(exponent, math.exp(start), 1.0 - left / spread if spread else 1.0)


def add_arguments(parser: argparse._ArgumentGroup) -> None:
    """Add the options that set the sizes and the models."""
    sizes: dict[str, Any] = {"type": int, "nargs": "+"}
    parser.add_argument(
        "--growth-tokens", **sizes, default=[32, 64, 128, 256], help="lengths of a stream [32 64 128 256]"
    )
    parser.add_argument("--growth-batches", **sizes, default=[1, 2, 4, 8, 16], help="responses a call [1 2 4 8 16]")
    parser.add_argument("--growth-questions", **sizes, default=[4, 8, 16, 32], help="questions of a run [4 8 16 32]")
    parser.add_argument("--growth-repeats", type=int, default=1, help="how often each size is measured [1]")
    parser.add_argument("--growth-detector", default="embedded", help="detector of streams and batches [embedded]")


def measure(options: argparse.Namespace) -> Iterator[Measurement]:
    """Measure the exponents; those of runs with the models, lengths and batches of the evaluation benchmark."""
    for name in ("tokens", "batches", "questions"):
        sizes = getattr(options, f"growth_{name}")
        least = LEAST_TOKENS if name == "tokens" else 1
        if len(set(sizes)) < LEAST_SIZES or min(sizes) < least:
            raise InputError(f"--growth-{name} must be {LEAST_SIZES} different sizes or more, none below {least}")
    yield from measure_detector(options)
    yield measure_runs(options)


def measure_detector(options: argparse.Namespace) -> Iterator[Measurement]:
    """Measure the detector: streams by their length, batches by their size."""
    from benchmarks.streaming import Guarded, make_pieces
    from llava.protector.detector import HarmDetector

    shipped = HarmDetector.from_pretrained(options.growth_detector)
    longest = max(options.growth_tokens)
    config = dataclasses.replace(shipped.config, max_length=max(512, 2 * longest))
    roomy = HarmDetector(shipped.classifier, shipped.tokenizer, config)
    pieces = make_pieces(shipped.tokenizer, max(longest, RESPONSE_TOKENS + max(options.growth_batches)))

    def guard(size: int) -> Guarded:
        return Guarded(roomy, pieces[:size], time.perf_counter)

    yield compare_growth(
        "growth with the length of a response: guarded stream against scoring anew at every token",
        options.growth_tokens,
        lambda size: 1 / guard(size).run(0),
        lambda size: 1 / guard(size).run_rescoring(0),
        options.growth_repeats,
    )
    # Each of its own: what is said twice in a call is read once.
    rows = [
        ("".join(pieces[place : place + RESPONSE_TOKENS]), f"{QUESTION} {place}")
        for place in range(max(options.growth_batches))
    ]

    def score(size: int) -> float:
        responses, questions = zip(*rows[:size], strict=True)
        start = time.perf_counter()
        shipped.score(responses, questions, batch_size=size)
        return time.perf_counter() - start

    def score_one_by_one(size: int) -> float:
        start = time.perf_counter()
        for response, question in rows[:size]:
            shipped.score([response], [question])
        return time.perf_counter() - start

    yield compare_growth(
        "growth with the size of a batch: one call against one call a response",
        options.growth_batches,
        score,
        score_one_by_one,
        options.growth_repeats,
    )


def measure_runs(options: argparse.Namespace) -> Measurement:
    """Measure whole runs by their number of questions."""
    from benchmarks.evaluation import Bench

    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(options, Path(folder))
        return compare_growth(
            "growth with the number of questions: batched run against one question after another",
            options.growth_questions,
            lambda size: size / bench.run_batched(size),
            lambda size: size / bench.run_one_by_one(size),
            options.growth_repeats,
        )


def compare_growth(name: str, sizes: Sequence[int], ours: Side, baseline: Side, repeats: int) -> Measurement:
    """Measure both sides at every size in turn, and fit an exponent to the medians of each.

    Args:
        name: What is measured.
        sizes: Sizes, each given to both sides.
        ours: Seconds of our side at a size.
        baseline: The same for the baseline.
        repeats: How often each size is measured.
    """
    medians: dict[str, list[float]] = {"ours": [], "baseline": []}
    for size in sizes:
        values: dict[str, list[float]] = {"ours": [], "baseline": []}
        for repeat in range(repeats):
            sides = [("ours", ours), ("baseline", baseline)]
            for side, seconds in sides if repeat % 2 == 0 else sides[::-1]:
                values[side].append(seconds(size))
        for side, each in values.items():
            medians[side].append(statistics.median(each))
        print(f"{name}, {size}: {medians['ours'][-1]:.3f} s, {medians['baseline'][-1]:.3f} s", file=sys.stderr)
    laws = {side: fit_power_law(sizes, seconds) for side, seconds in medians.items()}
    fits = f"R² {laws['ours'].r_squared:.3f} and {laws['baseline'].r_squared:.3f}"
    return Measurement(
        name,
        laws["ours"].exponent,
        laws["baseline"].exponent,
        goal=1.0,
        unit="exponent",
        repeats=repeats,
        lower_is_better=True,
        note=f"sizes {', '.join(map(str, sizes))}; {fits}",
    )
