"""The shipped head on states: which rows it learns from, and the training.

    python scripts/train_state_head.py --data DIR --work DIR [--output DIR]

DATA holds the files that llava/assets/detector/README.md names; WORK keeps the pooled states, so an interrupted run
goes on. The recipe is `llava/train/configs/embedded_state_head.yaml`.
"""

from __future__ import annotations

import argparse
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from llava.data.training.answers import AnswerRow, to_answer_row
from llava.data.training.pairs import DetectorRow
from llava.fields import Fields
from llava.files import write_json
from llava.model.embedded.stack import ASSETS, EMBEDDED
from llava.options import read_options
from llava.places import check_output_folder
from llava.process import report_errors
from llava.protector.states.calibrate import to_cascade
from llava.protector.states.choice import choose_cascade
from llava.quality.detector_rows import KeyedRow, load_rows
from llava.train.embedded.selection import choose_rows
from llava.train.states.command import STUDY_NAME, build_head, pool_rows
from llava.train.states.fit import calibrate_head, choose_head, gather

RECIPE = Path(__file__).resolve().parents[1] / "configs" / "embedded_state_head.yaml"
FOLDER = ASSETS / "state_head"
NESTED = ("groups", "dev_rows", "limits")
Parts = dict[tuple[str, bool], Any]


@dataclass(frozen=True)
class Recipe:
    """What the YAML file says."""

    layers: tuple[int, ...]
    longest_answer: int
    """Tokens of an answer to learn from."""
    longest_measured: int
    """Tokens of an answer that something is chosen or measured on."""
    groups: Parts
    """Rows and total weight of each (group, label)."""
    dev_rows: Parts
    """Rows of each (group, label) of the dev side."""
    limits: dict[str, float]
    """Largest share of a group's harmless rows to flag."""
    overall: float
    """The same of all of them together."""


def read_recipe(path: Path = RECIPE) -> Recipe:
    """Read the recipe.

    Raises:
        InputError: When a value is missing or of the wrong kind.
    """
    found = Fields(read_options(path, nested=NESTED), str(path))

    def parts(name: str) -> Parts:
        return {
            (group, label == "harmful"): value
            for group, labels in found.mapping(name).items()
            for label, value in labels.items()
        }

    return Recipe(
        tuple(int(layer) for layer in found.items("layers")),
        found.integer("longest_answer", least=1),
        found.integer("longest_measured", least=1),
        parts("groups"),
        parts("dev_rows"),
        {name: float(rate) for name, rate in found.mapping("limits").items()},
        found.number("false_positive_rate", least=0, most=0.99),
    )


def collect_rows(keyed: Sequence[KeyedRow], recipe: Recipe) -> dict[str, list[AnswerRow]]:
    """Return the rows to learn from, each group and label weighing what the recipe says, and those of the dev side.

    Args:
        keyed: All rows, see `load_rows`.
        recipe: The recipe.
    """
    sizes = {part: int(rows) for part, (rows, _) in recipe.groups.items()}
    train = choose_rows([one for one in keyed if one.side == "train"], sizes)
    dev = choose_rows([one for one in keyed if one.side == "dev"], recipe.dev_rows)
    return {"train": weigh_rows(train, recipe.groups), "dev": [to_answer_row(row) for row in dev]}


def weigh_rows(rows: Sequence[DetectorRow], groups: Parts) -> list[AnswerRow]:
    """Return rows whose groups weigh together what a recipe says, 1 a row on average.

    Args:
        rows: The rows.
        groups: (group, label) → rows and total weight.
    """
    counts = Counter((row.source, row.harmful) for row in rows)
    scale = len(rows) / sum(groups[part][1] for part in counts)
    return [
        replace(
            to_answer_row(row),
            weight=scale * groups[row.source, row.harmful][1] / counts[row.source, row.harmful],
        )
        for row in rows
    ]


def train(data: Path, work: Path, output: Path = FOLDER, recipe: Recipe | None = None) -> None:
    """Pool states, choose layer, pooling and penalty, fit, calibrate, choose the cascade, and write the head.

    Args:
        data: Folder of the data files.
        work: Folder of the pooled states.
        output: Folder of the head.
        recipe: The recipe; None takes the shipped one.
    """
    from llava.model.loading import load_mllm
    from llava.protector.detector import HarmDetector

    recipe = recipe or read_recipe()
    for folder in (work, output):
        check_output_folder(folder)
    sides = collect_rows(load_rows(data), recipe)
    model = load_mllm(EMBEDDED, dtype="float32")
    longest = {"train": recipe.longest_answer, "dev": recipe.longest_measured}
    pooled = {name: pool_rows(model, work / name, rows, recipe.layers, longest[name]) for name, rows in sides.items()}
    best, fitted, candidates = choose_head(pooled["train"], pooled["dev"])
    states = gather(pooled["dev"], best.layer, best.pooling)
    found, scores = calibrate_head(fitted, states, sides["dev"], recipe.overall, recipe.limits)
    head = build_head(model, EMBEDDED, best, fitted, found)
    detector = HarmDetector.from_pretrained(EMBEDDED, dtype="float32")
    detected = np.array(detector.score([row.response for row in sides["dev"]], [row.prompt for row in sides["dev"]]))
    chosen = choose_cascade(
        scores,
        ~(detected < detector.threshold),
        [row.harmful for row in sides["dev"]],
        sources=[row.source for row in sides["dev"]],
        limits=recipe.limits,
    )
    head.config = replace(head.config, cascade=to_cascade(detector, chosen))
    head.save(output)
    write_json(output / STUDY_NAME, [asdict(candidate) for candidate in candidates])
    print(f"{output}: layer {best.layer}, {best.pooling}, threshold {found.threshold}, {chosen}")


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data files")
    parser.add_argument("--work", type=Path, required=True, help="folder for the pooled states")
    parser.add_argument("--output", type=Path, default=FOLDER, help="folder to write to [the shipped head's]")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    return report_errors(lambda: train(args.data, args.work, args.output))


if __name__ == "__main__":
    raise SystemExit(main())
