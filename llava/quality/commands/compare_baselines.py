"""Compare the shipped detector with simpler ones: python scripts/compare_baselines.py --data DIR

DIR holds the training files that the detector's card names. Writes docs/detector_comparison.md; some minutes on a CPU.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from llava.files import write_text_atomic
from llava.places import check_output_file
from llava.process import report_errors

PAGE = Path(__file__).resolve().parents[3] / "docs" / "detector_comparison.md"


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data files")
    parser.add_argument("--output", type=Path, default=PAGE, help="Markdown file to write [docs]")
    parser.add_argument("--detector", default="embedded", help="detector to compare with")
    parser.add_argument("--base", help="folder of the un-tuned model [the embedded one]")
    parser.add_argument("--limit", type=int, help="rows of each source on each side, for trials [all]")
    parser.add_argument("--device", help="torch device [detected]")
    parser.add_argument("--dtype", default="bfloat16", help="auto, float32, bfloat16 or float16 [bfloat16]")
    args = parser.parse_args(argv)
    return report_errors(lambda: compare(args))


def compare(args: argparse.Namespace) -> None:
    """Measure and write."""
    from llava.quality.baselines import compare_methods, render_comparison

    check_output_file(args.output)
    figures = compare_methods(
        args.data, detector=args.detector, base=args.base, limit=args.limit, device=args.device, dtype=args.dtype
    )
    write_text_atomic(args.output, render_comparison(figures, args.dtype))
    for row in figures:
        print(f"{row.method}: scored in {row.seconds:.0f} s")
    print(args.output)
