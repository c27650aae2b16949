"""Measure the shipped detector on disguised answers and in other languages, and write that into its card.

    python scripts/evaluate_reach.py --data DIR --work DIR

The first DIR holds the labelled answers (see scripts/prepare_embedded_data.py). Scores are kept in the second, so that
a run that was killed goes on where it stopped. Half an hour on one core.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from llava.model.embedded.stack import ASSETS, EMBEDDED
from llava.places import check_output_folder
from llava.process import report_errors


def measure(data: Path, work: Path, device: str | None = None) -> Path:
    """Measure, write figures, scores and card, and return the card's path.

    Args:
        data: Folder of the labelled answers.
        work: Where scores are kept while they come.
        device: Torch device; None detects it.

    Raises:
        InputError: When a folder or a file cannot be used.
    """
    from llava.files import read_json
    from llava.model.options import LoadOptions
    from llava.protector.detector import HarmDetector
    from llava.quality import cards
    from llava.quality.detector_reach import choose_disguised, compute_reach, score_reach
    from llava.quality.guard_bench.scores import ScoreBook

    folder = ASSETS / "detector"
    check_output_folder(folder)
    check_output_folder(work)
    rows = choose_disguised(data)
    options = LoadOptions(device=device, dtype="float32")
    detector = HarmDetector.from_pretrained(EMBEDDED, options)
    scores = score_reach(ScoreBook(work, detector, options), rows)
    figures = {"weights": cards.name_weights(folder), **compute_reach(rows, scores, detector.threshold)}
    cards.write_scores(folder, scores, cards.REACH_NAME)
    metrics = read_json(folder / "metrics.json", "figures of the detector's card")
    cards.write_card(folder, "detector", {**metrics, "reach": figures})
    return folder / "README.md"


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data files")
    parser.add_argument("--work", type=Path, required=True, help="folder for the scores while they come")
    parser.add_argument("--device", help="torch device [detected]")
    args = parser.parse_args(argv)
    return report_errors(lambda: print(measure(args.data, args.work, args.device)))
