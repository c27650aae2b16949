"""Measure the shipped adapters on held-out rows and write their cards: python scripts/evaluate_embedded.py --data DIR

DIR holds the training files that the cards name. About ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from llava.errors import InputError
from llava.model.embedded import ASSETS, EMBEDDED


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data files")
    parser.add_argument("--only", choices=("detector", "detoxifier"), help="measure one of the two")
    parser.add_argument("--device", help="torch device [detected]")
    args = parser.parse_args(argv)
    try:
        evaluate(args.data, args.only, args.device)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def evaluate(data: Path, only: str | None, device: str | None) -> None:
    """Measure and write."""
    from llava.protector.detector import HarmDetector
    from llava.protector.detoxifier import Detoxifier
    from llava.train import cards

    train_rows, held_out = cards.load_detector_split(data)
    detector = HarmDetector.from_pretrained(EMBEDDED, device=device, dtype="float32")
    if only != "detoxifier":
        cards.write_card(ASSETS / "detector", "detector", cards.measure_detector(detector, held_out))
        print(ASSETS / "detector" / "README.md")
    if only != "detector":
        detoxifier = Detoxifier.from_pretrained(EMBEDDED, device=device, dtype="float32")
        _, harmful = cards.load_detoxifier_split(data)
        judge = cards.fit_word_judge(train_rows)
        cards.write_card(
            ASSETS / "detoxifier", "detoxifier", cards.measure_detoxifier(detoxifier, harmful, judge, detector)
        )
        print(ASSETS / "detoxifier" / "README.md")


if __name__ == "__main__":
    raise SystemExit(main())
