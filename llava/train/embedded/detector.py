"""The second and third step of the shipped detector's training.

    python -m llava.train.embedded.detector --data DIR --adapter DIR --output DIR [--recipe YAML]

The first step is `scripts/train_embedded.py detector`; the recipe of the second is
`llava/train/configs/embedded_detector_upper.yaml`, that of the third `embedded_detector_short.yaml`, each from
the adapter of the one before. After an interruption the states that are there are used again.
Under a launcher (`torchrun`) the processes share the work.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from llava.data.training.pairs import DetectorRow, load_detector_rows
from llava.data.training.sources import parse_mixture
from llava.data.training.splits import split_of
from llava.fields import Fields
from llava.model.embedded.stack import BASE_ID, resolve_base_name
from llava.model.hub import fetch
from llava.model.language_model import language_model_folder
from llava.model.tokenizers import load_tokenizer
from llava.options import read_options
from llava.places import check_output_folder
from llava.process import report_errors
from llava.protector.config import ProtectorConfig
from llava.protector.text import Window, encode_windows
from llava.quality.cards import PAIRS
from llava.quality.detector_rows import load_rows
from llava.train.embedded.selection import (
    EXCERPTS,
    HIDDEN,
    LONGEST_PROMPT,
    choose_rows,
    cut_excerpts,
    digest,
    hide_passages,
)
from llava.train.embedded.states import StateStore, run_layers
from llava.train.embedded.threshold import read_choice, set_threshold
from llava.train.embedded.upper_layers import Example, Settings, UpperDetector, train_upper

RECIPE = Path(__file__).resolve().parents[1] / "configs" / "embedded_detector_upper.yaml"
HEAVY = 1.5
"""Weight up to which a row comes once an epoch."""
WHOLE = 4096
"""Tokens that a row is encoded with, before its answer is cut."""


@dataclass(frozen=True)
class Recipe:
    """What the YAML file says."""

    settings: Settings
    groups: dict[tuple[str, bool], tuple[int, float]]
    """Rows and total weight of each (group, label)."""
    longest_answer: int
    prompt_dropout: float
    pairs: int
    stretch_margin: float


def read_recipe(path: Path = RECIPE) -> Recipe:
    """Read the recipe.

    Raises:
        InputError: When a value is missing or of the wrong kind.
    """
    found = Fields(read_options(path, nested=("groups", "dev_rows", "limits")), str(path))
    groups = {}
    for group, labels in found.mapping("groups").items():
        for label, (rows, weight) in labels.items():
            groups[group, label == "harmful"] = (int(rows), float(weight))
    stretches = tuple(int(length) for length in found.items("stretches"))
    named = {field.name for field in fields(Settings)} & set(found.values)
    settings = Settings(**{**{name: found.values[name] for name in named}, "stretches": stretches})
    return Recipe(
        settings,
        groups,
        found.integer("longest_answer", least=1),
        found.number("prompt_dropout", least=0, most=1),
        found.integer("pairs", least=0),
        found.number("stretch_margin", least=0),
    )


def collect_rows(data: Path, recipe: Recipe) -> list[DetectorRow]:
    """Return the labelled training rows; each group and label weighs what the recipe says, 1 a row on average."""
    made = {HIDDEN: hide_passages, EXCERPTS: cut_excerpts}
    sizes = {part: rows for part, (rows, _) in recipe.groups.items() if part[0] not in made}
    chosen = choose_rows([keyed for keyed in load_rows(data) if keyed.side == "train"], sizes)
    rows = list(chosen)
    for name, make in made.items():
        rows += make(chosen, {label: count for (group, label), (count, _) in recipe.groups.items() if group == name})
    counts: dict[tuple[str, bool], int] = {}
    for row in rows:
        counts[row.source, row.harmful] = counts.get((row.source, row.harmful), 0) + 1
    scale = len(rows) / sum(weight for part, (_, weight) in recipe.groups.items() if part in counts)
    return [
        replace(row, weight=scale * recipe.groups[row.source, row.harmful][1] / counts[row.source, row.harmful])
        for row in rows
    ]


def collect_pairs(data: Path, count: int) -> list[DetectorRow]:
    """Return preference pairs of the training side, the less harmful answer first: rows 2i and 2i + 1 are a pair."""
    sides: dict[str, dict[bool, DetectorRow]] = {}
    for row in load_detector_rows(parse_mixture(str(data / f"{PAIRS}.jsonl"))) if count else []:
        if row.pair_id is not None and row.chosen is not None and split_of(row.group) == "train":
            sides.setdefault(row.pair_id, {})[row.chosen] = row
    good = [
        key
        for key, pair in sides.items()
        if len(pair) == 2 and len(pair[True].prompt) < LONGEST_PROMPT and pair[True].response != pair[False].response
    ]
    return [sides[key][chosen] for key in sorted(good, key=digest)[:count] for chosen in (True, False)]


def encode(tokenizer: Any, row: DetectorRow, recipe: Recipe) -> Window:
    """Tokenise a row, its answer cut; some rows come without their question."""
    dropped = random.Random(row.prompt + row.response).random() < recipe.prompt_dropout
    config = ProtectorConfig(kind="detector", max_length=WHOLE)
    window = encode_windows(tokenizer, config, "" if dropped else row.prompt, row.response)[0]
    return Window(window.ids[: window.head + recipe.longest_answer], window.head)


def train_detector(data: Path, adapter: Path, output: Path, recipe: Recipe, base_name: str = BASE_ID) -> None:
    """Choose the rows, compute the states, train; the adapters lie in `output/epoch-N`."""
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1 and not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo", timeout=timedelta(hours=12))
    base = str(language_model_folder(fetch(resolve_base_name(base_name), "base model", "check --base")))
    tokenizer = load_tokenizer(base)
    rows, pairs = collect_rows(data, recipe), collect_pairs(data, recipe.pairs)
    windows = [encode(tokenizer, row, recipe) for row in (*rows, *pairs)]
    config = ProtectorConfig.load(adapter, "detector")
    detector = UpperDetector(base, adapter, config, recipe.settings)
    backbone = detector.network.backbone.eval()
    store = share_store(output / "states", windows, backbone.config.hidden_size, rank, world)
    store.fill(
        lambda ids: run_layers(backbone, backbone.embed_tokens(ids), 0, recipe.settings.first_layer), rank, world
    )
    if world > 1:
        torch.distributed.barrier()
    train_upper(detector, store, form_examples(rows, pairs), output, rank, world)
    if rank == 0:
        last = output / f"epoch-{recipe.settings.epochs}"
        named = replace(config, base_model=base_name, threshold=0.5, temperature=1.0)
        named = replace(named, stretches=recipe.settings.stretches, stretch_margin=recipe.stretch_margin)
        named.save(last)


def form_examples(rows: list[DetectorRow], pairs: list[DetectorRow]) -> list[tuple[Example, ...]]:
    """Return what an epoch sees; a row that weighs a lot comes several times, each with its share of the weight."""
    units: list[tuple[Example, ...]] = []
    for number, row in enumerate(rows):
        times = max(1, round(row.weight / HEAVY))
        units += [(Example(number, row.harmful, row.weight / times, turn),) for turn in range(times)]
    first = len(rows)
    for at in range(first, first + len(pairs), 2):
        units.append((Example(at, False, 0.0), Example(at + 1, True, 0.0)))
    return units


def share_store(folder: Path, windows: list[Window], width: int, rank: int, world: int) -> StateStore:
    """Open the states in every process; the first one makes the file."""
    if rank == 0:
        store = StateStore(folder, windows, width)
    if world > 1:
        torch.distributed.barrier()
    return store if rank == 0 else StateStore(folder, windows, width)


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data files")
    parser.add_argument("--adapter", type=Path, required=True, help="the first step's adapter")
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    parser.add_argument("--base", default=BASE_ID, help="base model of the adapter [%(default)s]")
    parser.add_argument("--recipe", type=Path, default=RECIPE, help="another recipe")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    def run() -> None:
        check_output_folder(args.output)
        recipe = read_recipe(args.recipe)
        train_detector(args.data, args.adapter, args.output, recipe, args.base)
        if os.environ.get("RANK", "0") == "0":
            adapter = args.output / f"epoch-{recipe.settings.epochs}"
            found = set_threshold(adapter, args.data, read_choice(args.recipe))
            print(f"{adapter}: threshold {found.threshold:.6f}, temperature {found.temperature:.4f}")

    return report_errors(run)


if __name__ == "__main__":
    raise SystemExit(main())
