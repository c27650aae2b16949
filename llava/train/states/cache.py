"""Pooled states of labelled answers, computed once and kept on disk, so that any number of heads share one pass."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from llava.data.training.answers import AnswerRow
from llava.files import read_json, write_json
from llava.protector.states.reading import BATCH_TOKENS, AnswerReader, cut_tokens

if TYPE_CHECKING:
    from PIL.Image import Image

    from llava.model.answering.generation import MultimodalModel

logger = logging.getLogger(__name__)

Halves = npt.NDArray[np.float16]
OpenImage = Callable[[str], "Image"]

STATES, INDEX, PROGRESS = "pooled.f16", "index.json", "done.json"
PREFIXES = (16, 48)
"""Tokens of the beginnings whose means are kept beside that of the whole: what a stream sees on its way."""
WHOLE, LAST = -2, -1
"""Places, among what is kept of an answer, of the mean over the whole and of the last token's state."""
KEPT = len(PREFIXES) + 2
SAVE_EVERY = 10
"""Batches from one mark of progress to the next."""


class PooledStates:
    """A folder with what is kept of each answer: means over its beginnings and the whole, and its last state.

    Half precision, (N, layers, `KEPT`, H): of 5,000 answers and four layers of 576 numbers 92 MB.
    """

    def __init__(
        self, folder: Path, rows: Sequence[AnswerRow], layers: Sequence[int], width: int, longest: int, key: str
    ):
        """Open the folder, or make it for these rows.

        Args:
            folder: Where the states lie.
            rows: The answers, with their questions.
            layers: Numbers of the layers.
            width: Size of a state, H.
            longest: Tokens of an answer that are read.
            key: Which model; states of another one are computed anew.
        """
        self.folder, self.rows, self.layers, self.longest = folder, list(rows), tuple(layers), longest
        folder.mkdir(parents=True, exist_ok=True)
        shape = (len(rows), len(layers), KEPT, width)
        texts = hashlib.sha256("\0".join(f"{row.prompt}\0{row.response}\0{row.image}" for row in rows).encode())
        index = {
            "rows": texts.hexdigest(),
            "shape": list(shape),
            "layers": list(layers),
            "longest": longest,
            "model": key,
        }
        path = folder / STATES
        if not path.exists() or not (folder / INDEX).exists() or read_json(folder / INDEX, "index of states") != index:
            (folder / PROGRESS).unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            write_json(folder / INDEX, index)
        self.values: Halves = np.memmap(path, dtype=np.float16, mode="r+" if path.exists() else "w+", shape=shape)

    def fill(self, model: MultimodalModel, open_image: OpenImage) -> None:
        """Compute what is not there yet; after an interruption it goes on.

        Args:
            model: The model.
            open_image: Opens the image of a row that has one.
        """
        progress = self.folder / PROGRESS
        done = read_json(progress, "progress")["batches"] if progress.exists() else 0
        answers = [cut_tokens(model.tokenizer, row.response, self.longest) for row in self.rows]
        batches = form_batches(self.rows, answers)
        reader = AnswerReader(model, self.layers)
        for at, batch in enumerate(batches):
            if at < done:
                continue
            images = (
                [open_image(str(self.rows[number].image)) for number in batch] if self.rows[batch[0]].image else None
            )
            prompts = [self.rows[number].prompt for number in batch]
            found = reader.read(prompts, [answers[number] for number in batch], images)
            for number, states in zip(batch, found, strict=True):
                self.values[number] = torch.stack([pool_states(layer.float()) for layer in states]).half().cpu().numpy()
            if at % SAVE_EVERY == SAVE_EVERY - 1 or at == len(batches) - 1:
                self.values.flush()  # type: ignore[attr-defined]
                write_json(progress, {"batches": at + 1})
                logger.info("%s: %d of %d batches", self.folder, at + 1, len(batches))

    def read(self, layer: int, place: int = WHOLE) -> torch.Tensor:
        """Return what is kept of all answers behind a layer, (N, H) in single precision.

        Args:
            layer: Number of the layer.
            place: `WHOLE`, `LAST`, or a place in `PREFIXES`.
        """
        return torch.from_numpy(self.values[:, self.layers.index(layer), place].astype(np.float32))


def form_batches(rows: Sequence[AnswerRow], answers: Sequence[str], tokens: int = BATCH_TOKENS) -> list[list[int]]:
    """Group rows of like length, with and without image apart, into batches of about `tokens` padded tokens.

    Args:
        rows: The rows.
        answers: Their answers, as they are read.
        tokens: Tokens of a batch, four letters each.
    """
    lengths = [(len(row.prompt) + len(answer)) // 4 + 15 for row, answer in zip(rows, answers, strict=True)]
    batches: list[list[int]] = []
    for with_image in (False, True):
        batch: list[int] = []
        chosen = [number for number, row in enumerate(rows) if (row.image is not None) == with_image]
        for number in sorted(chosen, key=lambda number: -lengths[number]):
            if batch and (len(batch) + 1) * lengths[batch[0]] > tokens:
                batches.append(batch)
                batch = []
            batch.append(number)
        batches += [batch] if batch else []
    return batches


def pool_states(states: torch.Tensor) -> torch.Tensor:
    """Return what is kept of an answer's states behind one layer, (n, H) → (`KEPT`, H); NaN where there is no token."""
    means = [states[:count].mean(dim=0) for count in (*PREFIXES, len(states))]
    last = states[-1] if len(states) else means[-1]
    return torch.stack([*means, last])
