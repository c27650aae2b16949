"""Hidden states below the trained layers, computed once and kept on disk.

Layers that stay as they are give the same states in every epoch. On two CPU cores that halves a training of a few
epochs, and any number of trials share one pass.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from llava.files import read_json, write_json
from llava.protector.text import Window

logger = logging.getLogger(__name__)

STATES, INDEX = "states.f16", "index.json"
BATCH_TOKENS = 1024
"""Padded tokens of a forward pass."""


@dataclass(frozen=True)
class Batch:
    """Windows of similar length, padded on the right."""

    numbers: list[int]
    """Which windows."""
    states: torch.Tensor
    """Float32, (B, T, H)."""
    response_mask: torch.Tensor
    """1 for the response's tokens, (B, T)."""


class StateStore:
    """A folder with the states of windows, one behind the other in half precision.

    Half precision moves a harm logit by some 0.01; what is measured in the end is computed without it.
    """

    def __init__(self, folder: Path, windows: Sequence[Window], width: int):
        """Open the folder, or make it for these windows.

        Args:
            folder: Where the states lie.
            windows: The windows, in the order of their numbers.
            width: Size of a hidden state, H.
        """
        self.folder, self.windows = folder, windows
        self.lengths = np.array([len(window.ids) for window in windows])
        self.starts = np.concatenate([[0], np.cumsum(self.lengths)])
        folder.mkdir(parents=True, exist_ok=True)
        index = [[len(window.ids), window.head, sum(window.ids) % 65521] for window in windows]
        path = folder / STATES
        if not path.exists() or read_json(folder / INDEX, "index of states") != index:
            for progress in folder.glob("done-*.json"):
                progress.unlink()
            write_json(folder / INDEX, index)
            path.write_bytes(b"")
        self.states = np.memmap(
            path, dtype=np.float16, mode="r+" if path.stat().st_size else "w+", shape=(int(self.starts[-1]), width)
        )

    def batches(self, numbers: Sequence[int], tokens: int = BATCH_TOKENS) -> Iterator[list[int]]:
        """Group windows by length into batches of about `tokens` padded tokens."""
        batch: list[int] = []
        for number in sorted(numbers, key=lambda number: -self.lengths[number]):
            if batch and (len(batch) + 1) * self.lengths[batch[0]] > tokens:
                yield batch
                batch = []
            batch.append(number)
        if batch:
            yield batch

    def fill(self, lower: Callable[[torch.Tensor], torch.Tensor], rank: int = 0, world: int = 1) -> None:
        """Compute what is not there yet; after an interruption it goes on, in as many processes as before.

        Args:
            lower: Maps token ids, (B, T), padded on the right, to hidden states, (B, T, H).
            rank: Number of this process, where several share the work.
            world: How many there are.
        """
        progress = self.folder / f"done-{rank}-of-{world}.json"
        done = read_json(progress, "progress")["batches"] if progress.exists() else 0
        batches = list(self.batches(range(len(self.windows))))[rank::world]
        for at, batch in enumerate(batches):
            if at < done:
                continue
            ids = torch.zeros((len(batch), int(self.lengths[batch[0]])), dtype=torch.long)
            for row, number in enumerate(batch):
                ids[row, : self.lengths[number]] = torch.tensor(self.windows[number].ids)
            with torch.inference_mode():
                states = lower(ids)
            for row, number in enumerate(batch):
                start = self.starts[number]
                self.states[start : start + self.lengths[number]] = states[row, : self.lengths[number]].half().numpy()
            if at % 5 == 4 or at == len(batches) - 1:
                self.states.flush()
                write_json(progress, {"batches": at + 1})
                logger.info("%s: %d of %d batches", self.folder, at + 1, len(batches))

    def read(self, numbers: Sequence[int]) -> Batch:
        """Read windows back as one batch."""
        longest = int(max(self.lengths[number] for number in numbers))
        states = torch.zeros((len(numbers), longest, self.states.shape[1]))
        mask = torch.zeros((len(numbers), longest))
        for row, number in enumerate(numbers):
            start, length = self.starts[number], int(self.lengths[number])
            states[row, :length] = torch.from_numpy(self.states[start : start + length].astype(np.float32))
            mask[row, self.windows[number].head : length] = 1
        return Batch(list(numbers), states, mask)


def run_layers(backbone: Any, states: torch.Tensor, first: int, last: int) -> torch.Tensor:
    """Run a part of a Llama's layers over padded-right states, (B, T, H) → (B, T, H).

    No attention mask is needed: what a causal layer says of a token never depends on what stands behind it.
    """
    positions = torch.arange(states.shape[1], device=states.device)[None]
    rotary = backbone.rotary_emb(states, positions)
    for layer in backbone.layers[first:last]:
        out = layer(states, attention_mask=None, position_ids=positions, position_embeddings=rotary)
        states = out[0] if isinstance(out, tuple) else out
    return states
