"""Measure the shipped judge of answers and write its card: python scripts/evaluate_judge.py --data DIR

DIR holds the files that the card names. A minute on one core.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from llava.places import check_output_folder
from llava.process import report_errors

LABELLED = Path("tests/eval/labelled_answers.jsonl")


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data files")
    parser.add_argument("--labelled", type=Path, default=LABELLED, help="answers labelled by hand [%(default)s]")
    parser.add_argument("--judge", type=Path, help="another judge's folder, whose card is written [the shipped one's]")
    args = parser.parse_args(argv)
    return report_errors(lambda: measure(args.data, args.labelled, args.judge))


def measure(data: Path, labelled: Path, folder: Path | None) -> None:
    """Measure the judge, write its card and print where it lies."""
    from llava.eval.judges.answers import FOLDER, SETTINGS, AnswerJudge
    from llava.files import read_json
    from llava.quality.cards import write_card
    from llava.quality.judge.figures import measure_agreement, measure_judge

    folder = folder or FOLDER
    check_output_folder(folder)
    judge = AnswerJudge.from_folder(folder)
    figures = {
        "trained_on": read_json(folder / SETTINGS, "judge settings")["trained_on"],
        **measure_judge(judge, data),
        "by_hand": measure_agreement(judge, labelled),
    }
    write_card(folder, "judge", figures)
    print(folder / "README.md")


if __name__ == "__main__":
    raise SystemExit(main())
