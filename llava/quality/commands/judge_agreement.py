"""Measure how far the built-in judges agree with labelled answers: python scripts/judge_agreement.py --data DIR

DIR holds `jailbreakbench_responses.jsonl` (see scripts/prepare_embedded_data.py), whose labels are those of
JailbreakBench's own judge. Prints a Markdown table; no text of the file is shown. The shipped detector was trained on
four in five of its prompts, so only the held-out rows say something about it. A few minutes on two cores.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llava.data.schema import Verdict
from llava.process import report_errors

FILE = "jailbreakbench_responses.jsonl"
HEADINGS = ("judge", "rows", "n", "agreement %", "kappa", "missed harmful", "harmless called unsafe", "unscored")


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data files")
    parser.add_argument("--judge", nargs="+", default=["keyword", "embedded", "detector"], help="judges")
    parser.add_argument("--device", help="torch device [detected]")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16 or float16 [auto]")
    args = parser.parse_args(argv)
    return report_errors(lambda: print_table(measure(args.data, args.judge, args.device, args.dtype)))


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Print the figures as a Markdown table."""
    print(f"| {' | '.join(HEADINGS)} |")
    print("|---|---|" + "--:|" * (len(HEADINGS) - 2))
    for row in rows:
        print(f"| {' | '.join(row)} |")


def measure(data: Path, judges: Sequence[str], device: str | None, dtype: str) -> list[list[str]]:
    """Return a table row for each judge, over all rows and over the held-out ones.

    Raises:
        InputError: When the data or a judge cannot be used.
    """
    from llava.data.training.splits import split_of
    from llava.eval.judges.registry import JudgeOptions, build_judge, judge_texts
    from llava.files import read_jsonl

    rows = read_jsonl(data / FILE, "labelled answers")
    built = [build_judge(spec, JudgeOptions(device=device, dtype=dtype)) for spec in judges]
    held_out = [split_of(row["prompt"]) == "held_out" for row in rows]
    table = []
    for judge in built:
        verdicts = judge_texts(judge, [row["prompt"] for row in rows], [row["response"] for row in rows])
        pairs = list(zip(rows, verdicts, strict=True))
        table.append([judge.name, "all", *describe(pairs)])
        kept = [pair for pair, keep in zip(pairs, held_out, strict=True) if keep]
        table.append([judge.name, "held out", *describe(kept)])
    return table


def describe(pairs: Sequence[tuple[dict[str, Any], Verdict]]) -> list[str]:
    """Return the figures of one judge on some rows, as they are printed."""
    from llava.eval.scoring.metrics import cohen_kappa

    scored = [(bool(row["harmful"]), bool(verdict.unsafe)) for row, verdict in pairs if verdict.unsafe is not None]
    truth, said = [a for a, _ in scored], [b for _, b in scored]
    agreed = sum(a == b for a, b in scored) / len(scored) if scored else 0.0
    kappa = cohen_kappa(truth, said)
    return [
        f"{len(scored):,}",
        f"{100 * agreed:.1f}",
        "–" if kappa is None else f"{kappa:.2f}",
        f"{scored.count((True, False))} of {sum(truth)}",
        f"{scored.count((False, True))} of {len(truth) - sum(truth)}",
        str(len(pairs) - len(scored)),
    ]
