"""Which rows are trained on, and which are held out: split by prompt, without repeats on either side or across."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Literal

from llava.data.training.duplicates import Row, drop_duplicates
from llava.data.training.sources import MixturePart, parse_mixture
from llava.data.training.splits import normalise_prompt, split_rows
from llava.errors import InputError
from llava.train.arguments import DataArguments

logger = logging.getLogger(__name__)


def load_split(
    data: DataArguments, load: Callable[[Sequence[MixturePart], Literal["train", "test"]], list[Row]]
) -> tuple[list[Row], list[Row]]:
    """Return training and held-out rows, read with `load`; what is left out is counted and logged.

    Held-out rows stay as they are but for equal ones. Of the training rows go those whose prompt is held out, and those
    that repeat another training row or a held-out one.

    Raises:
        InputError: When no training row is left.
    """
    rows = load(parse_mixture(data.train_data), "train")
    if data.eval_data:
        held_out = load(parse_mixture(data.eval_data, "--eval-data"), "test")
        rows = drop_prompts(rows, held_out)
    else:
        rows, held_out = split_rows(rows, data.split_seed, data.held_out_fraction)
    held_out, again, _ = drop_duplicates(held_out)
    if again:
        logger.info("dropped %d held-out rows that repeat others", again)
    rows, repeated, leaked = drop_duplicates(rows, held_out, data.near_duplicates or None)
    if repeated or leaked:
        logger.info("dropped %d training rows that repeat others, %d that repeat held-out ones", repeated, leaked)
    rows = rows[: data.max_rows]
    if not rows:
        remedy = f"its prompts are those of {data.eval_data}" if data.eval_data else "lower --held-out-fraction"
        raise InputError(f"--train-data {data.train_data} leaves no training row; {remedy}")
    return rows, held_out


def drop_prompts(rows: Sequence[Row], held_out: Sequence[Row]) -> list[Row]:
    """Return the rows to other prompts than the held-out ones; case, spacing and punctuation make no other prompt.

    Other responses to a held-out prompt would let the model recognise its words.
    """
    asked = {normalise_prompt(row.group) for row in held_out}
    kept = [row for row in rows if normalise_prompt(row.group) not in asked]
    if len(kept) < len(rows):
        logger.info("dropped %d training rows whose prompt is among the held-out ones", len(rows) - len(kept))
    return kept
