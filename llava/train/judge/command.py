"""Train the shipped judge of answers: python scripts/train_judge.py --data DIR [--output DIR]

DIR holds the files that llava/assets/judge/README.md names. A minute on one core. `--study` prints what parts of the
features are worth instead, by cross-validation on the training rows.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from llava.data.training.pairs import DetectorRow
from llava.eval.judges.answer_features import BINS, Features, describe_answer
from llava.eval.judges.answers import FOLDER, SETTINGS, WEIGHTS, AnswerWeights
from llava.files import write_json
from llava.model.files.tensors import write_tensors
from llava.places import check_output_folder
from llava.process import report_errors
from llava.quality.detector_rows import MSTS, KeyedRow
from llava.quality.judge.rows import DIASAFETY, GPTFUZZ
from llava.quality.metrics import evaluate_detector
from llava.train.judge.fit import PENALTY, choose_threshold, fit_weights, score_folds, weigh_rows
from llava.train.judge.rows import MADE, SHARES, collect_judge_rows

VARIANTS: tuple[tuple[str, float, tuple[str, ...]], ...] = (
    ("facts alone", PENALTY, ()),
    ("facts, words", PENALTY, ("words",)),
    ("facts, words, pairs", PENALTY, ("words", "pairs")),
    ("all", PENALTY, tuple(BINS)),
    ("all, a third of the penalty", PENALTY / 3, tuple(BINS)),
    ("all, three times the penalty", PENALTY * 3, tuple(BINS)),
)
"""What `--study` compares: name, penalty, tables."""


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data files")
    parser.add_argument("--output", type=Path, default=FOLDER, help="folder to write to [the shipped judge's]")
    parser.add_argument("--study", action="store_true", help="compare features instead, and write nothing")
    args = parser.parse_args(argv)
    return report_errors(lambda: study(args.data) if args.study else train(args.data, args.output))


def train(data: Path, output: Path) -> None:
    """Choose the threshold by cross-validation, fit the weights on all rows, and write both."""
    check_output_folder(output)
    rows = collect_judge_rows(data)
    features = describe_rows(rows)
    scores = score_folds(rows, features, SHARES)
    trusted = [i for i, keyed in enumerate(rows) if keyed.row.source != DIASAFETY]
    kept = [rows[i] for i in trusted]
    labels = [keyed.row.harmful for keyed in kept]
    threshold = choose_threshold(labels, [scores[i] for i in trusted], weigh_rows(kept, SHARES))
    weights = fit_weights(features, [keyed.row.harmful for keyed in rows], weigh_rows(rows, SHARES))
    output.mkdir(parents=True, exist_ok=True)
    save_weights(weights, output / WEIGHTS)
    write_json(output / SETTINGS, {"threshold": threshold, "trained_on": count_rows(rows)})
    print(f"{output}: {len(rows)} rows, threshold {threshold}")


def count_rows(rows: Sequence[KeyedRow]) -> dict[str, dict[str, int]]:
    """Return the number of rows of each source, of harmful ones among them, and of prompts (of kinds, where made).

    Example:
        >>> row = DetectorRow("How?", "So.", True, "x")
        >>> count_rows([KeyedRow(row, "how")] * 2)
        {'x': {'n': 2, 'harmful': 2, 'keys': 1}}
    """
    found: dict[str, dict[str, int]] = {}
    for source in dict.fromkeys(keyed.row.source for keyed in rows):
        part = [keyed for keyed in rows if keyed.row.source == source]
        harmful = sum(keyed.row.harmful for keyed in part)
        found[source] = {"n": len(part), "harmful": harmful, "keys": len({keyed.key for keyed in part})}
    return found


def describe_rows(rows: Sequence[KeyedRow]) -> list[Features]:
    """Return the features of rows."""
    return [describe_answer(keyed.row.prompt, keyed.row.response) for keyed in rows]


def save_weights(weights: AnswerWeights, path: Path) -> None:
    """Write weights in half precision."""
    import torch

    parts = {**weights.tables, "facts": weights.facts}
    tensors = {name: torch.tensor(part).half() for name, part in parts.items()}
    write_tensors(path, {**tensors, "bias": torch.tensor([weights.bias]).half()})


def study(data: Path) -> None:
    """Print the cross-validated AUROC of each variant: on all training rows but DiaSafety's, and by source."""
    rows = collect_judge_rows(data)
    features = describe_rows(rows)
    shown = (GPTFUZZ, MADE, DIASAFETY, MSTS)
    print(f"| features | all | {' | '.join(shown)} |\n|---|{'--:|' * (len(shown) + 1)}")
    for name, penalty, tables in VARIANTS:
        scores = score_folds(rows, features, SHARES, penalty, tables)
        pairs = list(zip((keyed.row for keyed in rows), scores, strict=True))
        trusted = [pair for pair in pairs if pair[0].source != DIASAFETY]
        parts = [trusted, *([pair for pair in pairs if pair[0].source == source] for source in shown)]
        print(f"| {name} | {' | '.join(format_auroc(part) for part in parts)} |", flush=True)


def format_auroc(part: Sequence[tuple[DetectorRow, float]]) -> str:
    """Return the AUROC of some rows with their scores, as it is printed."""
    rows, scores = [row for row, _ in part], [score for _, score in part]
    return f"{evaluate_detector(rows, scores, resamples=0)['overall']['auroc']:.3f}"


if __name__ == "__main__":
    raise SystemExit(main())
