"""Guarding a response while it is written: against one pass over the whole, and against no guard at all.

A stream of 256 tokens comes token by token. One side guards it, the others score the finished text once, or the text so
far after every token, as a guard without a state does. The detector is the shipped one, and the same network with a
window that holds the whole (in one window nothing is read twice by either side, so that is the harder comparison).

Then a language model writes, alone and guarded by a detector of its own size, both in one thread: tokens per second,
and when the first and the last text come. Rates of these, not times, so that higher is better everywhere; those without
a promise have the goal 0.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import statistics
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from benchmarks.measurement import CLOCKS, Measurement, compare
from benchmarks.training import WORDS
from llava.errors import InputError

PASS_GOAL = 1 / 1.3
"""A guarded stream takes at most 1.3 times as long as one pass over its text."""
RESCORING_GOAL = 10.0
THROUGHPUT_GOAL = 0.85
SAMPLE = 16
"""One in so many prefixes is scored anew, and the time taken as many times; all of them would take minutes."""
HARMLESS = 1.0
"""A threshold that nothing reaches: what is measured is harmless traffic."""
QUESTION = "How is bread made?"
FIRST, LAST = "first", "last"


def add_arguments(parser: argparse._ArgumentGroup) -> None:
    """Add the options that set the size of the measurement and the models."""
    parser.add_argument("--streaming-tokens", type=int, default=256, help="tokens of the guarded stream [256]")
    parser.add_argument("--streaming-repeats", type=int, default=3, help="how often each side is measured [3]")
    parser.add_argument("--streaming-detector", default="embedded", help="detector of all sides [embedded]")
    parser.add_argument("--streaming-base", default="embedded", help="language model that writes [embedded]")
    parser.add_argument("--streaming-answers", type=int, default=6, help="answers that it writes [6]")
    parser.add_argument("--streaming-clock", choices=sorted(CLOCKS), default="wall", help="seconds that count [wall]")
    parser.add_argument("--streaming-new-tokens", type=int, default=128, help="tokens of each answer [128]")


def measure(options: argparse.Namespace) -> Iterator[Measurement]:
    """Measure streams per second, then tokens per second and times to text."""
    if min(options.streaming_tokens, options.streaming_new_tokens) < SAMPLE:
        raise InputError(f"--streaming-tokens and --streaming-new-tokens must be at least {SAMPLE}")
    yield from measure_passes(options)
    yield from measure_traffic(options)


def measure_passes(options: argparse.Namespace) -> Iterator[Measurement]:
    """Measure a guarded stream against passes of the detector."""
    from llava.protector.detector import HarmDetector

    shipped = HarmDetector.from_pretrained(options.streaming_detector)
    config = dataclasses.replace(shipped.config, max_length=max(512, 2 * options.streaming_tokens))
    roomy = HarmDetector(shipped.classifier, shipped.tokenizer, config)
    clock = CLOCKS[options.streaming_clock]
    pieces = make_pieces(shipped.tokenizer, options.streaming_tokens)
    shared: dict[str, Any] = {"unit": "streams/s", "repeats": options.streaming_repeats}
    for name, detector in (("one window", roomy), ("the detector's own windows", shipped)):
        guarded = Guarded(detector, pieces, clock)
        yield compare(
            f"guarded stream against one pass, {name}", guarded.run, guarded.run_pass, goal=PASS_GOAL, **shared
        )
    guarded = Guarded(roomy, pieces, clock)
    yield compare(
        "guarded stream against re-scoring at every token",
        guarded.run,
        guarded.run_rescoring,
        goal=RESCORING_GOAL,
        **shared,
    )


def make_pieces(tokenizer: Any, count: int) -> list[str]:
    """Return a text in pieces of one token each."""
    text = " ".join(random.Random(0).choices(WORDS, k=2 * count))
    offsets = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False, verbose=False)["offset_mapping"]
    return [text[start:end] for start, end in offsets[:count]]


class Guarded:
    """The ways to check one stream; each returns streams per second."""

    def __init__(self, detector: Any, pieces: list[str], clock: Callable[[], float]):
        """Take a detector, the stream in its pieces, and what tells the time."""
        from llava.protector.protector import Protector

        self.detector = detector
        self.protector = Protector(detector, threshold=HARMLESS)
        self.pieces = pieces
        self.clock = clock
        detector.open_stream(QUESTION)  # each network is tried once; that is no part of a stream

    def run(self, repeat: int) -> float:
        """Guard the stream."""
        start = self.clock()
        released = "".join(self.protector.guard_stream(QUESTION, self.pieces))
        seconds = self.clock() - start
        if released != "".join(self.pieces):
            raise RuntimeError("a harmless stream was changed")
        return 1 / seconds

    def run_pass(self, repeat: int) -> float:
        """Score the finished text once."""
        start = self.clock()
        self.detector.score(["".join(self.pieces)], [QUESTION])
        return 1 / (self.clock() - start)

    def run_rescoring(self, repeat: int) -> float:
        """Score the text so far after every token, estimated from a sample."""
        start = self.clock()
        for count in range(SAMPLE // 2, len(self.pieces) + 1, SAMPLE):
            self.detector.score(["".join(self.pieces[:count])], [QUESTION])
        return 1 / ((self.clock() - start) * SAMPLE)


class Answer(NamedTuple):
    """How long a written answer took."""

    tokens: int
    """Its tokens."""
    first: float
    """Seconds until its first text could be shown."""
    last: float
    """Seconds until all of it could be shown."""


def measure_traffic(options: argparse.Namespace) -> Iterator[Measurement]:
    """Measure a model that writes, with and without a guard of its size."""
    writer = Writer(options.streaming_base, options.streaming_new_tokens, CLOCKS[options.streaming_clock])
    guarded: list[Answer] = []
    alone: list[Answer] = []
    for number in range(options.streaming_answers):
        sides = [(guarded, writer.write_guarded), (alone, writer.write_alone)]
        for answers, write in sides if number % 2 == 0 else sides[::-1]:
            answers.append(write(f"{QUESTION} Tell me {number + 1} things about it."))
        print(f"answer {number + 1}: {guarded[-1]} guarded, {alone[-1]} alone", file=sys.stderr, flush=True)
    count = len(guarded)
    ours, baseline = (sum(each.tokens for each in side) / sum(each.last for each in side) for side in (guarded, alone))
    yield Measurement("throughput of guarded harmless answers", ours, baseline, THROUGHPUT_GOAL, "tokens/s", count)
    for moment in (FIRST, LAST):
        times = [[getattr(each, moment) for each in side] for side in (guarded, alone)]
        added = [one - other for one, other in zip(*times, strict=True)]
        for share, word in ((0.5, "median"), (0.99, "99%")):
            print(f"added time to the {moment} text, {word}: {quantile(added, share):.3f} s", file=sys.stderr)
            ours, baseline = (1 / quantile(side, share) for side in times)
            yield Measurement(f"{moment} text of a guarded answer, {word}", ours, baseline, 0.0, "1/s", count)


def quantile(values: list[float], share: float) -> float:
    """Return the value that so great a share of all does not exceed.

    Example:
        >>> quantile([3.0, 1.0, 2.0], 0.5), quantile([3.0, 1.0, 2.0], 0.99)
        (2.0, 3.0)
    """
    return statistics.median(values) if share == 0.5 else sorted(values)[min(len(values) - 1, int(share * len(values)))]


class Writer:
    """A language model that writes greedily, one token at a time, and a guard of the same size."""

    def __init__(self, base: str, new_tokens: int, clock: Callable[[], float]):
        """Load the model twice: to write, and with a fresh head as a detector of all its layers."""
        import torch

        from llava.model.quiet import quiet_transformers
        from llava.model.tokenizers import load_tokenizer
        from llava.protector.classifier import HarmClassifier, load_sequence_classifier
        from llava.protector.config import ProtectorConfig
        from llava.protector.detector import HarmDetector
        from llava.protector.detoxifier import load_causal_lm
        from llava.protector.protector import Protector
        from llava.train.arguments import ModelArguments
        from llava.train.base import resolve_base

        folder, _ = resolve_base(ModelArguments(base=base))
        self.tokenizer = load_tokenizer(folder)
        with quiet_transformers():
            self.model = load_causal_lm(folder, dtype=torch.float32).eval()
            torch.manual_seed(0)  # the fresh head
            network = HarmClassifier(load_sequence_classifier(folder, dtype=torch.float32), "mean_response")
        config = ProtectorConfig(kind="detector", pooling="mean_response", max_length=4 * new_tokens, normalise=True)
        detector = HarmDetector(network, self.tokenizer, config)
        detector.open_stream("")  # each network is tried once; that is no part of a stream
        self.protector = Protector(detector, threshold=HARMLESS)
        self.new_tokens = new_tokens
        self.clock = clock

    def write(self, question: str) -> Iterator[str]:
        """Write an answer in pieces; one that has ended goes on, so that all have the same length."""
        import torch
        from transformers import DynamicCache

        from llava.model.answering.prompt_cache import CACHE

        ids = self.tokenizer(f"Question: {question}\n\nAnswer:", return_tensors="pt")["input_ids"]
        cache, written, shown = DynamicCache(), [], ""
        for _ in range(self.new_tokens):
            with torch.inference_mode():
                logits = self.model(input_ids=ids, use_cache=True, **{CACHE: cache}).logits[:, -1]
            ids = logits.argmax(-1, keepdim=True)
            written.append(int(ids))
            text = self.tokenizer.decode(written)
            if not text.endswith("\ufffd"):  # half a character
                yield text[len(shown) :]
                shown = text

    def write_alone(self, question: str) -> Answer:
        """Write an answer and show it as it comes."""
        return self.time(self.write(question))

    def write_guarded(self, question: str) -> Answer:
        """Write an answer behind the guard."""
        return self.time(self.protector.guard_stream(question, self.write(question)))

    def time(self, pieces: Iterator[str]) -> Answer:
        """Return when pieces come."""
        start = self.clock()
        moments = [self.clock() - start for piece in pieces if piece]
        return Answer(self.new_tokens, moments[0], moments[-1])
