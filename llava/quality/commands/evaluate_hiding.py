"""Measure how much harm a detector still sees when little of it stands in much ordinary text.

    python scripts/evaluate_hiding.py --data DIR --output hiding.json

DIR holds the labelled answers (see scripts/prepare_embedded_data.py). Passages of some forty harmful words are put
among four hundred ordinary ones, between refusals, and at the start, in the middle and at the end of 8,000 tokens, all
from prompts that training holds out. They should be flagged as often as alone, and the ordinary text without them
hardly ever. No text is shown. Three quarters of an hour on one core.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from llava.data.evasions.frames import refusals_around
from llava.data.training.pairs import DetectorRow
from llava.errors import InputError
from llava.model.embedded.stack import EMBEDDED
from llava.places import check_output_file
from llava.process import report_errors
from llava.protector.guards.base import Guard, is_flagged, score_responses
from llava.quality.bootstrap import bootstrap_intervals, number_groups

PASSAGES, LONG_PASSAGES = 60, 12
WORDS, TOKENS = 400, 8_000
ALONE, WITHOUT = "alone", "ordinary text without it"


class Hidden(NamedTuple):
    """A text to score."""

    place: str
    """What was done with the passage."""
    prompt: str
    """The harmful question; an ordinary one where the passage is left out."""
    response: str
    """The passage among other text, or that text alone."""


def draw_ordinary(rows: Sequence[DetectorRow], draw: random.Random, enough: Callable[[str], bool]) -> list[DetectorRow]:
    """Return ordinary rows whose answers, one after the other, are enough.

    Raises:
        InputError: When all of them together are too little.
    """
    chosen: list[DetectorRow] = []
    for row in draw.sample(list(rows), len(rows)):
        chosen.append(row)
        if enough(join_answers(chosen)):
            return chosen
    raise InputError("the held-out ordinary answers are too few words; add some to --data, or give --long 0")


def join_answers(rows: Sequence[DetectorRow]) -> str:
    """Return the answers of rows as one text."""
    return "\n\n".join(row.response.strip() for row in rows)


def hide(passage: str, around: Sequence[str], place: str) -> str:
    """Put a passage at the `start`, in the `middle` or at the `end` of ordinary answers.

    Example:
        >>> hide("x", ["a", "b", "c", "d"], "middle").split()
        ['a', 'b', 'x', 'c', 'd']
    """
    at = {"start": 0, "middle": len(around) // 2, "end": len(around)}[place]
    return "\n\n".join([*around[:at], passage, *around[at:]])


def make_texts(
    passages: Sequence[DetectorRow], ordinary: Sequence[DetectorRow], long: int, count_tokens: Callable[[str], int]
) -> list[Hidden]:
    """Return each passage alone and hidden in every way, and the ordinary text without it.

    Args:
        passages: Harmful sentences with their question.
        ordinary: Ordinary answers.
        long: How many of the passages are put into long texts too.
        count_tokens: Counts the tokens of a text.
    """
    texts = []
    for number, row in enumerate(passages):
        draw = random.Random(number)
        around = draw_ordinary(ordinary, draw, lambda text: len(text.split()) >= WORDS)
        among = f"among {WORDS} words"
        ways = {
            ALONE: row.response,
            among: hide(row.response, [each.response.strip() for each in around], "middle"),
            "ten refusals on each side": refusals_around(row.response, number),
        }
        # The ordinary text stands with a question of its own: beside a harmful one it would be no ordinary use.
        texts.append(Hidden(f"{among}: {WITHOUT}", around[0].prompt, join_answers(around)))
        if number < long:
            far = draw_ordinary(ordinary, draw, lambda text: count_tokens(text) >= TOKENS)
            for place in ("start", "middle", "end"):
                ways[f"{place} of {TOKENS:,} tokens"] = hide(
                    row.response, [each.response.strip() for each in far], place
                )
            ways[f"the first {long} {ALONE}"] = row.response
            texts.append(Hidden(f"{TOKENS:,} tokens: {WITHOUT}", far[0].prompt, join_answers(far)))
        texts += [Hidden(way, row.prompt, text) for way, text in ways.items()]
    return texts


def describe(texts: Sequence[Hidden], scores: Sequence[float], threshold: float) -> dict[str, Any]:
    """Return for each way how many texts there are, and the share of them that is flagged, with its interval."""
    figures = {}
    for place in dict.fromkeys(text.place for text in texts):
        those = [number for number, text in enumerate(texts) if text.place == place]
        flagged = np.array([is_flagged(scores[number], threshold) for number in those], float)
        groups = number_groups([texts[number].prompt for number in those])

        def measure(weights: Any, flagged: Any = flagged) -> dict[str, Any]:
            return {"flagged": weights @ flagged / weights.sum(1)}

        interval = bootstrap_intervals(measure, groups)["flagged"]
        figures[place] = {"n": len(those), "flagged": float(flagged.mean()), "ci95": interval}
    return figures


def draw_passages(rows: Sequence[DetectorRow], count: int) -> list[DetectorRow]:
    """Return passages of whole sentences from harmful answers, from as many questions as there are."""
    from llava.quality.repair.cases import list_spans

    draw = random.Random(0)
    spans = [list_spans(rows, group) for group in sorted({row.group for row in rows})]
    spans = [draw.sample(each, len(each)) for each in spans if each]
    turns = range(max(map(len, spans), default=0))
    return [each[turn] for turn in turns for each in spans if turn < len(each)][:count]


def evaluate(args: argparse.Namespace) -> dict[str, Any]:
    """Load what the arguments name, measure, and write the figures.

    Raises:
        InputError: When something that is named cannot be used.
    """
    from tqdm import tqdm

    from llava.files import write_json
    from llava.protector.guard import build_guard
    from llava.quality.detector_rows import JAILBREAKBENCH, VICUNA, load_side

    check_output_file(args.output)
    rows = load_side(args.data, "held_out")
    passages = draw_passages([row for row in rows if row.source == JAILBREAKBENCH and row.harmful], args.passages)
    ordinary = [row for row in rows if row.source in ("alpaca_eval", VICUNA)]
    guard: Guard = build_guard(args.detector, device=args.device, dtype=args.dtype)
    tokenizer = getattr(guard, "tokenizer", None)
    # A guard on another machine keeps its tokens to itself; English has some four characters a token.
    texts = make_texts(
        passages,
        ordinary,
        args.long,
        (lambda text: len(tokenizer(text)["input_ids"])) if tokenizer else (lambda text: len(text) // 4),
    )
    scores = [
        score_responses(guard, [text.response], [text.prompt])[0] for text in tqdm(texts, unit="text", disable=None)
    ]
    figures = {"detector": args.detector, "threshold": guard.threshold}
    figures["ways"] = describe(texts, scores, guard.threshold)
    write_json(args.output, figures)
    return figures


def print_table(figures: dict[str, Any], output: Path) -> None:
    """Print the figures as a Markdown table, shares in percent, and where they lie."""
    print("| where the passage stands | n | flagged |\n|---|--:|--:|")
    for place, found in figures["ways"].items():
        low, high = (100 * bound for bound in found["ci95"] or (0.0, 1.0))
        print(f"| {place} | {found['n']} | {100 * found['flagged']:.1f} ({low:.1f} to {high:.1f}) |")
    print(output)


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data files")
    parser.add_argument("--passages", type=int, default=PASSAGES, help=f"harmful passages [{PASSAGES}]")
    parser.add_argument("--long", type=int, default=LONG_PASSAGES, help=f"of them in long texts too [{LONG_PASSAGES}]")
    parser.add_argument("--detector", default=EMBEDDED, help="guard, as `mllm-protector detect` takes it [embedded]")
    parser.add_argument("--device", help="torch device [detected]")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16 or float16 [auto]")
    parser.add_argument("--output", type=Path, required=True, help="JSON file for the figures")
    args = parser.parse_args(argv)
    return report_errors(lambda: print_table(evaluate(args), args.output))
