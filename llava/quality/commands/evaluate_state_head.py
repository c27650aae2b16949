"""Measure the shipped head on states and write its card: python scripts/evaluate_state_head.py --data DIR

DIR holds the files that the detector's card names. The detector's scores are those beside it (held_out_scores.json).
Ten minutes on one idle core; scores are kept in WORK, so an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llava.places import check_output_folder
from llava.process import report_errors
from llava.quality.detector_rows import KeyedRow

CHUNK = 64
"""Rows between two marks of progress."""


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data files")
    parser.add_argument("--head", type=Path, help="another head's folder, whose card is written [the shipped one's]")
    parser.add_argument("--work", type=Path, default=Path("state_head_scores"), help="folder of scores [%(default)s]")
    parser.add_argument("--timing", type=Path, help="what `python -m benchmarks --only guarding` wrote")
    args = parser.parse_args(argv)
    return report_errors(lambda: measure(args.data, args.head, args.work, args.timing))


def measure(data: Path, folder: Path | None, work: Path, timing: Path | None) -> None:
    """Measure the head, write its card and print where it lies."""
    from llava.files import read_json
    from llava.model.embedded.stack import ASSETS, EMBEDDED
    from llava.model.loading import load_mllm
    from llava.protector.config import ProtectorConfig
    from llava.protector.states.cascade import find_cascade
    from llava.protector.states.finding import SHIPPED
    from llava.protector.states.head import StateHead
    from llava.quality.cards import SCORES_NAME, write_card, write_scores
    from llava.quality.detector_groups import name_row
    from llava.quality.states.figures import measure_stages
    from llava.quality.states.rows import choose_measured

    place = folder or SHIPPED
    for output in (place, work):
        check_output_folder(output)
    head = StateHead.from_pretrained(place)
    cascade = find_cascade(head, EMBEDDED, "")
    rows = choose_measured(data)
    model = load_mllm(EMBEDDED, dtype="float32")
    head.check(model)
    states = score_rows(head, model, rows, work / f"{head.key}.json")
    known = read_json(ASSETS / "detector" / SCORES_NAME, "scores of the detector")
    detector = ProtectorConfig.load(ASSETS / "detector", "detector")
    figures = {
        "layer": head.config.layer,
        "num_layers": head.config.num_layers,
        "hidden_size": head.config.hidden_size,
        "pooling": head.config.pooling,
        "threshold": head.threshold,
        "temperature": head.config.temperature,
        "detector_threshold": detector.threshold,
        "cascade": vars(cascade),
        "groups": measure_stages(
            rows,
            states,
            [known.get(name_row(keyed), math.nan) for keyed in rows],
            threshold=head.threshold,
            detector_threshold=detector.threshold,
            cascade=(cascade.low, cascade.high),
        ),
        "timing": read_json(timing, "timing") if timing else read_timing(place),
    }
    write_scores(place, {name_row(keyed): score for keyed, score in zip(rows, states, strict=True)})
    write_card(place, "state_head", figures)
    print(place / "README.md")


def read_timing(folder: Path) -> list[dict[str, Any]]:
    """Return the timing that a former card has; empty where there is none."""
    from llava.files import read_json

    path = folder / "metrics.json"
    found: list[dict[str, Any]] = read_json(path, "metrics")["timing"] if path.is_file() else []
    return found


def score_rows(head: Any, model: Any, rows: Sequence[KeyedRow], path: Path) -> list[float]:
    """Return the head's score of each row; those that are in a file of scores already are not computed again."""
    from llava.files import read_json, write_json
    from llava.quality.detector_groups import name_row

    path.parent.mkdir(parents=True, exist_ok=True)
    known: dict[str, float] = read_json(path, "scores") if path.is_file() else {}
    left = sorted(
        {name_row(keyed): keyed.row for keyed in rows if name_row(keyed) not in known}.items(),
        key=lambda item: len(item[1].prompt) + len(item[1].response),
    )
    for start in range(0, len(left), CHUNK):
        part = left[start : start + CHUNK]
        found = head.score(model, [row.prompt for _, row in part], [row.response for _, row in part], batch_size=32)
        known |= {name: score for (name, _), score in zip(part, found, strict=True)}
        write_json(path, known)
        print(f"{start + len(part)} of {len(left)} rows scored", flush=True)
    return [known[name_row(keyed)] for keyed in rows]


if __name__ == "__main__":
    raise SystemExit(main())
