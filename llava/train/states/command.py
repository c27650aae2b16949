"""Train a head on a multimodal model's own states: `mllm-protector train-detector --on-states --model M …`.

The model reads every question (with its image, where the row has one) and answer once; what is kept of its states lies
in OUTPUT/states, so a training that was interrupted goes on, and another one starts from there.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

import torch

from llava.bounds import check_bounds
from llava.data.images import open_image
from llava.data.training.answers import AnswerRow, build_loader
from llava.data.training.splits import split_of
from llava.errors import InputError
from llava.files import write_json
from llava.protector.states.config import POOLINGS, StateHeadConfig
from llava.protector.states.head import StateHead
from llava.protector.states.samples import sample_weights
from llava.quality.detector_rows import DEV_FRACTION, DEV_SEED
from llava.train.arguments import DataArguments, option, parse_arguments, resolved_arguments
from llava.train.base import prepare_output, run_entry_point, save_arguments
from llava.train.rows.selection import load_split
from llava.train.states.cache import PooledStates
from llava.train.states.fit import Candidate, Fitted, calibrate_head, choose_head, gather

if TYPE_CHECKING:
    from llava.model.answering.generation import MultimodalModel
    from llava.protector.calibration import Calibration

logger = logging.getLogger(__name__)

FLAG = "--on-states"
STUDY_NAME = "candidates.json"
"""What was tried, beside the head."""


@dataclass
class StateArguments:
    """Whose states are read, and how a head learns from them."""

    on_states: bool = option(True, "Train a head on the states of --model.")
    model: str = option("embedded", "Multimodal model whose answers will be guarded: folder, hub id, or `embedded`.")
    output_dir: str = option("", "Folder for the head.")
    resume: bool = option(False, "Go on in --output-dir: states that are there are used again.")
    layers: str = option("", "Layers to try, e.g. 10,14,18; by default five between a third and three quarters.")
    poolings: str = option("mean,mean+last", "Poolings to try: mean, mean+last.")
    longest: int = option(256, "Tokens of an answer that are read.")
    teacher: Optional[str] = option(  # noqa: UP045 - HfArgumentParser on Python 3.10
        None, "Guard whose scores are learnt instead of labels: embedded, a folder or a hub id, guard:PATH."
    )
    false_positive_rate: float = option(0.02, "Share of harmless dev rows that the threshold lets be flagged.")
    device: Optional[str] = option(None, "Torch device [detected].")  # noqa: UP045
    dtype: str = option("auto", "auto, float32, bfloat16 or float16.")
    base: Optional[str] = option(None, "Base of a model that is an adapter or a part of a LLaVA.")  # noqa: UP045
    vision_tower: Optional[str] = option(None, "CLIP tower of an original LLaVA, where the named one is not to be had.")  # noqa: UP045

    def __post_init__(self) -> None:
        """Check the values."""
        check_bounds("false_positive_rate", self.false_positive_rate)
        if self.longest < 1:
            raise InputError(f"--longest is {self.longest}; it must be at least 1")
        self.tried = tuple(item.strip() for item in self.poolings.split(",") if item.strip())
        if not self.tried or any(item not in POOLINGS for item in self.tried):
            raise InputError(f"--poolings is {self.poolings}; choose among {', '.join(POOLINGS)}")
        pieces = [item.strip() for item in self.layers.split(",") if item.strip()]
        if not all(piece.isdecimal() and int(piece) > 0 for piece in pieces):
            raise InputError(f"--layers is {self.layers}; give whole numbers from 1, separated by commas")
        self.chosen = tuple(sorted({int(piece) for piece in pieces}))


def train(argv: list[str] | None = None) -> None:
    """Train a head as the command line says."""
    from llava.model.loading import load_mllm

    arguments, data = parse_arguments(
        (StateArguments, DataArguments), argv, "Train a harm head on the states of a multimodal model (--on-states)."
    )
    resolved = resolved_arguments(arguments, data)
    if not data.dry_run:
        prepare_output(arguments.output_dir, arguments.resume)
    rows, held_out = load_split(data, build_loader(labelled=arguments.teacher is None))
    sides = split_dev(rows)
    if data.dry_run:
        print("\n".join(describe_side(name, side) for name, side in {**sides, "held out": held_out}.items()))
        return
    if arguments.teacher is not None:
        sides = {name: teach_rows(side, arguments.teacher, arguments) for name, side in sides.items()}
        held_out = teach_rows(held_out, arguments.teacher, arguments)
    check_sides(sides)
    model = load_mllm(
        arguments.model,
        device=arguments.device,
        dtype=arguments.dtype,
        base=arguments.base,
        vision_tower=arguments.vision_tower,
    )
    folder = Path(arguments.output_dir)
    layers = arguments.chosen or spread_layers(model)
    pooled = {
        name: pool_rows(model, folder / "states" / name, side, layers, arguments.longest)
        for name, side in {**sides, "held_out": held_out}.items()
        if side
    }
    best, fitted, candidates = choose_head(pooled["train"], pooled["dev"], arguments.tried)
    states = gather(pooled["dev"], best.layer, best.pooling)
    try:
        found, _ = calibrate_head(fitted, states, sides["dev"], arguments.false_positive_rate)
    except ValueError as error:
        raise InputError(f"--train-data {data.train_data}: {error}; give more rows") from None
    head = build_head(model, arguments.model, best, fitted, found)
    head.save(folder)
    save_arguments(str(folder), resolved)
    write_json(folder / STUDY_NAME, [asdict(candidate) for candidate in candidates])
    logger.info("%s: layer %d, %s, threshold %.6f", folder, best.layer, best.pooling, found.threshold)
    if held_out:
        write_held_out(folder, pooled["held_out"], fitted, head.config)


def write_held_out(folder: Path, pooled: PooledStates, fitted: Fitted, config: StateHeadConfig) -> None:
    """Write the figures of the held-out rows beside the head."""
    from llava.quality.figures import write_figures

    logits = fitted.logits(gather(pooled, config.layer, config.pooling))
    scores = torch.sigmoid(logits / config.temperature).tolist()
    metrics = write_figures(folder, pooled.rows, scores, config.threshold, config.temperature)["overall"]
    shown = {key: round(value, 4) for key, value in metrics.items() if isinstance(value, float)}
    logger.info("held out: n=%d %s", metrics["n"], shown)


def split_dev(rows: Sequence[AnswerRow]) -> dict[str, list[AnswerRow]]:
    """Return the rows to learn from and those that choose, split by question."""
    sides: dict[str, list[AnswerRow]] = {"train": [], "dev": []}
    for row in rows:
        sides["dev" if split_of(row.group, DEV_SEED, DEV_FRACTION) == "held_out" else "train"].append(row)
    return sides


def describe_side(name: str, rows: Sequence[AnswerRow]) -> str:
    """Return what `--dry-run` says of some rows."""
    harmful, images = sum(row.harmful for row in rows), sum(row.image is not None for row in rows)
    return f"{name}: {len(rows)} answers, {harmful} harmful, {images} with an image"


def check_sides(sides: dict[str, list[AnswerRow]]) -> None:
    """Refuse rows of one label alone.

    Raises:
        InputError: Naming the side.
    """
    for name, rows in sides.items():
        if not 0 < sum(row.harmful for row in rows) < len(rows):
            raise InputError(f"the {name} side of --train-data has answers of one label alone; give more rows")


def teach_rows(rows: Sequence[AnswerRow], teacher: str, arguments: StateArguments) -> list[AnswerRow]:
    """Return rows with what a guard says of their answers; those that it cannot score are left out and counted."""
    from llava.protector.guard import build_guard
    from llava.protector.guards.base import score_responses

    if not rows:
        return []
    guard = build_guard(teacher, device=arguments.device, dtype=arguments.dtype)
    scores = score_responses(guard, [row.response for row in rows], [row.prompt for row in rows])
    kept = [
        replace(row, taught=score, harmful=score >= guard.threshold)
        for row, score in zip(rows, scores, strict=True)
        if score == score
    ]
    if len(kept) < len(rows):
        logger.warning("%s cannot score %d answers, which are left out", teacher, len(rows) - len(kept))
    return kept


def spread_layers(model: MultimodalModel) -> tuple[int, ...]:
    """Return five layers between a third and three quarters of a model's depth: the middle knows most of harm."""
    from llava.model.answering.states import find_layers

    depth = len(find_layers(model.model))
    return tuple(sorted({max(1, round(depth * part)) for part in (0.35, 0.45, 0.55, 0.65, 0.75)}))


def pool_rows(
    model: MultimodalModel, folder: Path, rows: Sequence[AnswerRow], layers: Sequence[int], longest: int
) -> PooledStates:
    """Return the pooled states of rows, computed where they are not there yet."""
    network: Any = model.model
    width = network.config.get_text_config(decoder=True).hidden_size
    pooled = PooledStates(folder, rows, layers, width, longest, model.name)
    pooled.fill(model, open_image)
    return pooled


def build_head(model: MultimodalModel, name: str, best: Candidate, fitted: Fitted, found: Calibration) -> StateHead:
    """Return the head of a model, with the threshold and the temperature that were found."""
    network: Any = model.model
    text = network.config.get_text_config(decoder=True)
    config = StateHeadConfig(
        model=name,
        model_type=text.model_type,
        num_layers=text.num_hidden_layers,
        hidden_size=text.hidden_size,
        layer=best.layer,
        pooling=best.pooling,
        threshold=found.threshold,
        temperature=found.temperature,
    )
    return StateHead(config, fitted.directions, fitted.bias, sample_weights(network, best.layer), name)


def is_asked(argv: Sequence[str]) -> bool:
    """Tell whether a command line asks for a head on states.

    Example:
        >>> is_asked(["--on-states", "--model", "embedded"]), is_asked(["--train-data", "rows.jsonl"])
        (True, False)
    """
    return any(item == FLAG or item.startswith(f"{FLAG}=") for item in argv)


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return run_entry_point(train, argv)
