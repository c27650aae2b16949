"""Measure how well answers with harm in one place are repaired: what is kept, and what harm is left.

    python scripts/evaluate_trimming.py --data DIR --output trimming.json

DIR holds the labelled answers (see scripts/prepare_embedded_data.py). Sentences of harmful answers are put at the
start, in the middle and at the end of ordinary ones, both to prompts that training holds out, and the protector is
asked about them. No text is shown. Without a detoxifier what cannot be trimmed is refused. Half an hour on two cores.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from llava.model.embedded.stack import EMBEDDED
from llava.places import check_output_file
from llava.process import report_errors

NONE = "none"
CASES, HARMFUL = 210, 48
HEADINGS = ("cases", "n", "trimmed", "rewritten", "refused", "missed", "harmless kept", "harmful left", "with missed")


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data files")
    parser.add_argument("--side", default="held_out", choices=("train", "dev", "held_out"), help="[held_out]")
    parser.add_argument("--cases", type=int, default=CASES, help=f"cases to make [{CASES}]")
    parser.add_argument("--harmful", type=int, default=HARMFUL, help=f"wholly harmful answers beside them [{HARMFUL}]")
    parser.add_argument("--detector", default=EMBEDDED, help="folder, hub id or 'embedded' [embedded]")
    parser.add_argument("--detoxifier", default=NONE, help="folder, hub id, 'embedded' or 'none' [none]")
    parser.add_argument("--threshold", type=float, help="harm score from which an answer is flagged [detector's own]")
    parser.add_argument("--device", help="torch device [detected]")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16 or float16 [auto]")
    parser.add_argument("--output", type=Path, required=True, help="JSON file for the figures")
    args = parser.parse_args(argv)
    return report_errors(lambda: print_table(evaluate(args), args.output))


def evaluate(args: argparse.Namespace) -> dict[str, Any]:
    """Load what the arguments name, measure, and write the figures.

    Raises:
        InputError: When something that is named cannot be used.
    """
    from llava.files import write_json
    from llava.protector.protector import Protector
    from llava.quality.detector_rows import JAILBREAKBENCH, load_side
    from llava.quality.repair.cases import make_cases
    from llava.quality.repair.evaluation import measure_trimming

    check_output_file(args.output)
    cases = make_cases(args.data, args.cases, args.side)
    rows = [row for row in load_side(args.data, args.side) if row.source == JAILBREAKBENCH and row.harmful]
    count = min(args.harmful, len(rows))
    detoxifier = None if args.detoxifier == NONE else args.detoxifier
    protector = Protector.from_pretrained(
        args.detector, detoxifier, args.threshold, device=args.device, dtype=args.dtype
    )
    figures = {
        **{"detector": args.detector, "detoxifier": detoxifier, "side": args.side},
        **measure_trimming(protector, cases, [rows[i * len(rows) // count] for i in range(count)]),
    }
    write_json(args.output, figures)
    return figures


def print_table(figures: dict[str, Any], output: Path) -> None:
    """Print the figures as a Markdown table, shares in percent, and where they lie."""
    print(f"| {' | '.join(HEADINGS)} |")
    print("|---|" + "--:|" * (len(HEADINGS) - 1))
    groups = {"all": figures["overall"], **figures["by_position"], **figures["by_question"]}
    if "wholly_harmful" in figures:
        groups["wholly harmful"] = figures["wholly_harmful"]
    for name, found in groups.items():
        shown = [found[key] for key in ("trimmed", "rewritten", "refused", "missed", "harmless_kept", "harmful_left")]
        cells = [str(found["n"]), *map(write_share, shown), write_share(found["harmful_left_with_missed"])]
        print(f"| {name} | {' | '.join(cells)} |")
    safe = figures["shown_below_threshold"]
    print(f"{safe['below']} of {safe['n']} trimmed answers are below the threshold when scored anew")
    print(output)


def write_share(found: dict[str, Any]) -> str:
    """Return a share in percent with its interval.

    Example:
        >>> write_share({"share": 0.5, "ci95": [0.4, 0.625]}), write_share({"share": None, "ci95": None})
        ('50.0 (40.0 to 62.5)', '–')
    """
    if found["share"] is None:
        return "–"
    low, high = found["ci95"] or (None, None)
    interval = "" if low is None or high is None else f" ({100 * low:.1f} to {100 * high:.1f})"
    return f"{100 * found['share']:.1f}{interval}"
