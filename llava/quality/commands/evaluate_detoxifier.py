"""Measure a detoxifier: what becomes of harmful responses, and what it does to harmless ones.

    python scripts/evaluate_detoxifier.py --detoxifier runs/detoxifier --detector embedded --held-out \\
        --data labelled.jsonl --judge words:labelled.jsonl --output runs/detoxifier/evaluation.json

--data takes the files that training takes, commas between them. Rewriting pairs and labelled harmful responses are
rewritten and judged; labelled harmless ones show what stays as it was. Several judges may be named: `words:FILE` (word
counts fitted on labelled responses to other prompts), `detector:PATH`, `guard:PATH`, `chat:MODEL@URL`, `keyword`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from llava.errors import InputError
from llava.model.embedded.stack import EMBEDDED
from llava.places import check_output_file
from llava.process import report_errors

NONE = "none"


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detoxifier", default=EMBEDDED, help="folder, hub id or 'embedded' [embedded]")
    parser.add_argument("--detector", default=EMBEDDED, help="the detector in front of it, or 'none' [embedded]")
    parser.add_argument("--data", required=True, help="files with harmful and harmless responses")
    parser.add_argument("--held-out", action="store_true", help="only prompts that training holds out of these files")
    parser.add_argument("--judge", nargs="+", default=["detector"], help="judges of the rewrites [detector]")
    parser.add_argument("--embedding-model", help="folder or hub id, or 'none' [all-MiniLM-L6-v2 as packaged]")
    parser.add_argument("--limit", type=int, help="at most so many harmful and so many harmless responses")
    parser.add_argument("--forced", type=int, help="harmless responses that it is made to rewrite [all]")
    parser.add_argument("--max-new-tokens", type=int, default=256, help="longest rewrite in tokens [256]")
    parser.add_argument("--batch-size", type=int, default=16, help="responses rewritten at a time [16]")
    parser.add_argument("--device", help="torch device [detected]")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16 or float16 [auto]")
    parser.add_argument("--output", type=Path, required=True, help="JSON file for the figures")
    args = parser.parse_args(argv)
    return report_errors(lambda: print_figures(evaluate(args), args.output))


def evaluate(args: argparse.Namespace) -> dict[str, Any]:
    """Load what the arguments name, measure, and write the figures.

    Raises:
        InputError: When something that is named cannot be used.
    """
    from llava.data.training.pairs import load_detoxifier_rows
    from llava.data.training.sources import parse_mixture
    from llava.data.training.splits import split_rows
    from llava.eval.judges.registry import JudgeOptions
    from llava.files import write_json
    from llava.model.sentence_embeddings import SentenceEmbedder
    from llava.protector.detector import HarmDetector
    from llava.protector.detoxifier import Detoxifier
    from llava.quality.detoxifier_evaluation import Instruments, measure_detoxifier
    from llava.quality.word_judge import build_evaluation_judge

    check_output_file(args.output)
    rows = load_detoxifier_rows(parse_mixture(args.data, "--data"), "test", keep_harmless=True)
    if args.held_out:
        _, rows = split_rows(rows)
    harmful = [row for row in rows if not row.harmless][: args.limit]
    harmless = [row for row in rows if row.harmless][: args.limit]
    if not harmful:
        raise InputError(f"--data {args.data} leaves no harmful response to rewrite; add some, or drop --held-out")
    detector = None if args.detector == NONE else args.detector
    place: dict[str, Any] = {"device": args.device, "dtype": args.dtype}
    options = JudgeOptions(detector=detector, **place)
    judges = [build_evaluation_judge(spec, {row.prompt for row in rows}, options) for spec in args.judge]
    instruments = Instruments(
        judges=judges,
        detector=HarmDetector.from_pretrained(detector, **place) if detector else None,
        embedder=None
        if args.embedding_model == NONE
        else SentenceEmbedder.from_pretrained(args.embedding_model, device=args.device),
        max_new_tokens=args.max_new_tokens,
        batch_size=args.batch_size,
        forced=args.forced,
    )
    detoxifier = Detoxifier.from_pretrained(args.detoxifier, **place)
    figures = {
        "detoxifier": args.detoxifier,
        "detector": detector,
        "data": args.data,
        "held_out": args.held_out,
        **measure_detoxifier(detoxifier, harmful, harmless, instruments),
    }
    write_json(args.output, figures)
    return figures


def print_figures(figures: dict[str, Any], output: Path) -> None:
    """Print the shares and means, one a line, with their intervals, and where they lie."""

    def walk(value: Any, path: tuple[str, ...]) -> None:
        if not isinstance(value, dict):
            return
        number = value.get("share", value.get("mean"))
        if number is not None:
            low, high = value["ci95"] or (float("nan"), float("nan"))
            print(f"{' '.join(path).replace('_', ' '):60} {number:6.3f}  ({low:.3f} to {high:.3f})")
            return
        for key, item in value.items():
            walk(item, (*path, key))

    walk(figures, ())
    print(output)
