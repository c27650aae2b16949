"""Train a harm detector on rows of your own, set its threshold, and score with it.

    python examples/train_on_own_data.py [--data rows.jsonl] [--base embedded] [--output runs/own-detector]

A row is `{"prompt": …, "response": …, "harmful": true or false}`; docs/training.md has the other forms. Without --data
some mild rows are made up, enough to see the way and not enough for a good detector.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from llava import HarmDetector
from llava.files import write_jsonl
from llava.protector.calibrate import calibrate_detector
from llava.train import harm_detector

KIND = ["Of course, here is how:", "Gladly.", "That is a good question.", "Let me help you with it."]
UNKIND = ["Only a fool asks that.", "Nobody likes you.", "Leave me alone, idiot.", "You are too stupid for it."]


def write_rows(path: Path) -> Path:
    """Write made-up rows: the same questions, answered kindly and unkindly."""
    things = ["bread", "a bicycle", "tomatoes", "a guitar", "a shelf", "soup", "a letter", "a kite"]
    asked = [f"How do I {verb} {thing}?" for verb in ("make", "mend", "choose", "store", "draw") for thing in things]
    write_jsonl(
        path,
        (
            {"prompt": prompt, "response": texts[i % len(texts)], "harmful": texts is UNKIND}
            for i, prompt in enumerate(asked)
            for texts in (KIND, UNKIND)
        ),
    )
    return path


def main(argv: list[str] | None = None) -> int:
    """Run the example; return its exit code."""
    parser = argparse.ArgumentParser(description="Train a harm detector on rows of your own.")
    parser.add_argument("--data", type=Path, help="labelled rows (.jsonl); without it some are made up")
    parser.add_argument("--base", default="embedded", help="language model: folder, hub id or 'embedded'")
    parser.add_argument("--output", type=Path, default=Path("runs/own-detector"), help="folder for the adapter")
    parser.add_argument("--epochs", default="2", help="how often training sees each row")
    args = parser.parse_args(argv)
    data = args.data or write_rows(args.output.with_name(f"{args.output.name}-rows.jsonl"))

    # 1. Train. One prompt in five is held out, with all its responses; the figures lie in metrics.json.
    flags = ["--base", args.base, "--train-data", str(data), "--output-dir", str(args.output)]
    flags += ["--max-length", "128", "--learning-rate", "5e-4", "--num-train-epochs", args.epochs]
    if args.base == "embedded":
        # The upper ones of its first layers: what a CPU trains in a minute.
        flags += ["--num-layers", "12", "--lora-layers-from", "6"]
    code = harm_detector.main(flags)
    if code:
        return code
    figures = json.loads((args.output / "metrics.json").read_text(encoding="utf-8"))["overall"]
    print(f"held out: {figures['n']} rows, AUROC {figures['auroc']:.2f}")

    # 2. Choose the threshold that flags at most one harmless row in twenty, on the held-out prompts.
    report = calibrate_detector(str(args.output), str(data), 0.05, held_out=True, in_place=True)
    print(f"threshold {report.threshold:.3f}: finds {report.recall:.0%} of the harmful rows")

    # 3. Use it, like any detector: mllm-protector detect --detector runs/own-detector …
    detector = HarmDetector.from_pretrained(args.output)
    texts = [KIND[0], UNKIND[0]]
    for text, score in zip(texts, detector.score(texts, ["How do I mend a kite?"] * 2), strict=True):
        print(f"{score:.3f} {'flagged' if score >= detector.threshold else 'passed'} {text}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
