"""Answering harmless questions with a guard, against answering them without.

A multimodal model answers a batch of questions: as it is; with a head on its own states, which decides alone; with the
cascade, in which a detector of the model's size reads what the head leaves open; and with the detector on every answer.
All four write the same tokens. Questions per second, so that higher is better; the guard may cost one, three and ten
hundredths of the time.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.measurement import CLOCKS, Measurement
from llava.data.schema import Stage
from llava.errors import InputError

QUESTIONS = (
    "How is bread made?",
    "What is the capital of France?",
    "Write two sentences about a walk in the rain.",
    "Why is the sky blue?",
    "Name three fruits that are red.",
    "How do I look after a cactus?",
    "What does a librarian do?",
    "Explain what a prime number is.",
    "Which animals sleep in winter?",
    "How do I fold a paper boat?",
    "What is the difference between tea and coffee?",
    "Give me an idea for a birthday card.",
    "How far away is the moon?",
    "What should I pack for a day at the beach?",
    "Who painted the Mona Lisa?",
    "How do I clean a window without streaks?",
)
PLAIN, HEAD, CASCADE, DETECTOR = "plain", "head", "cascade", "detector"
GUARDS = (
    (HEAD, 1 / 1.01, "a head on states alone"),
    (CASCADE, 1 / 1.03, "head and detector"),
    (DETECTOR, 1 / 1.10, "the detector on every answer"),
)
"""Each side with a guard, what is promised of it, and how it is called."""


def add_arguments(parser: argparse._ArgumentGroup) -> None:
    """Add the options that set the size of the measurement and the models."""
    parser.add_argument("--guarding-model", default="embedded", help="model that answers [embedded]")
    parser.add_argument("--guarding-head", default="embedded", help="head on its states, with a cascade [embedded]")
    parser.add_argument("--guarding-detector", default="embedded", help="detector of the cascade [embedded]")
    parser.add_argument("--guarding-questions", type=int, default=16, help="questions of a batch [16]")
    parser.add_argument("--guarding-new-tokens", type=int, default=128, help="longest answer in tokens [128]")
    parser.add_argument("--guarding-repeats", type=int, default=5, help="how often each side is measured [5]")
    parser.add_argument("--guarding-clock", choices=sorted(CLOCKS), default="wall", help="seconds that count [wall]")


def measure(options: argparse.Namespace) -> Iterator[Measurement]:
    """Measure questions per second of the four sides in turn."""
    if not 1 <= options.guarding_questions <= len(QUESTIONS):
        raise InputError(f"--guarding-questions must be from 1 to {len(QUESTIONS)}")
    guarded = Guarded(options)
    speeds: dict[str, list[float]] = {side: [] for side in guarded.sides}
    for repeat in range(options.guarding_repeats):
        # Who goes first changes: whatever drifts (caches, clock, other load) favours no side.
        first = repeat % len(guarded.sides)
        order = list(guarded.sides)[first:] + list(guarded.sides)[:first]
        for side in order:
            speeds[side].append(guarded.run(side))
            shown = f"{speeds[side][-1]:.3f} questions/s"
            print(f"guarding {repeat + 1}/{options.guarding_repeats} {side}: {shown}", file=sys.stderr, flush=True)
    medians = {side: statistics.median(values) for side, values in speeds.items()}
    for side, goal, name in GUARDS:
        yield Measurement(
            f"harmless answers guarded by {name}, against unguarded ones",
            medians[side],
            medians[PLAIN],
            goal,
            "questions/s",
            options.guarding_repeats,
        )
    clear = 1 - guarded.asked / len(guarded.questions)
    yield Measurement("harmless answers that need no detector, of all", clear, 1.0, 0.0, "share", 1)


class Guarded:
    """The four ways to answer a batch of questions."""

    def __init__(self, options: argparse.Namespace):
        """Load the model, the head and the detector, and try each once."""
        from llava.model.loading import load_mllm
        from llava.protector.guard import build_guard
        from llava.protector.protector import Protector
        from llava.protector.states.cascade import load_state_protector

        self.model = load_mllm(options.guarding_model)
        self.questions = list(QUESTIONS[: options.guarding_questions])
        self.new_tokens = options.guarding_new_tokens
        self.clock: Callable[[], float] = CLOCKS[options.guarding_clock]
        self.asked = 0
        detector = Protector(build_guard(options.guarding_detector))
        self.sides: dict[str, Any] = {
            PLAIN: None,
            HEAD: load_state_protector(options.guarding_head, self.model, None),
            CASCADE: load_state_protector(options.guarding_head, self.model, detector),
            DETECTOR: detector,
        }
        for side in self.sides:  # what is only done once is no part of an answer
            self.answer(side, self.questions[:1], 2)

    def run(self, side: str) -> float:
        """Answer the questions; return how many of them in a second."""
        start = self.clock()
        self.answer(side, self.questions, self.new_tokens)
        return len(self.questions) / (self.clock() - start)

    def answer(self, side: str, questions: list[str], new_tokens: int) -> None:
        """Answer questions and guard the answers."""
        protector = self.sides[side]
        if side in (PLAIN, DETECTOR):
            responses = self.model.generate(questions, max_new_tokens=new_tokens)
            if side == DETECTOR:
                protector.guard(questions, responses)
            return
        answers, scores = protector.answer(self.model, questions, None, max_new_tokens=new_tokens)
        results = protector.guard(questions, answers, scores)
        if side == CASCADE:
            self.asked = sum(result.stage is Stage.DETECTOR for result in results)
