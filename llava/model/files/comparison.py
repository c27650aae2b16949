"""Are the weights in memory those of a checkpoint? Held against its files number by number, a block at a time."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from llava.model.files.tensors import open_tensors, weight_files

if TYPE_CHECKING:
    import torch

BLOCK_NUMBERS = 4 << 20
"""How many numbers are read at a time: enough to be quick, too few to be seen in the process's memory."""
OUTPUT_LAYER = re.compile(r"(lm_head|embed_out|output)\.weight$")
"""How the families call their output layer; a checkpoint that ties it to the token embeddings does not hold it."""
INPUT_LAYER = re.compile(r"(embed_tokens|wte|embed_in|word_embeddings)\.weight$")


class Place(NamedTuple):
    """Where a tensor lies on disk."""

    file: Path
    key: str
    shape: tuple[int, ...]

    def read(self, start: int, stop: int) -> torch.Tensor:
        """Read some rows.

        The file is opened anew each time: pages of a mapped one count as the process's memory until it is closed.
        """
        return open_tensors(self.file).rows(self.key, start, stop)


class StoredWeights:
    """The tensors of a folder under a causal LM's names; of a vision-language model those of its language model.

    Only headers are read until a tensor is asked for.
    """

    def __init__(self, folder: Path):
        """Read the headers of the folder's weight files."""
        self.places: dict[str, Place] = {}
        for file in weight_files(folder):
            opened = open_tensors(file)
            for key in opened.keys:
                self.places[plain_name(key)] = Place(file, key, opened.shape(key))

    def find(self, name: str) -> Place | None:
        """Return where a tensor lies; None when it is not there.

        For an output layer that is not stored that is the place of the token embeddings.
        """
        if name in self.places or not OUTPUT_LAYER.search(name):
            return self.places.get(name)
        return next((place for own, place in self.places.items() if INPUT_LAYER.search(own)), None)

    def holds(self, name: str, tensor: torch.Tensor) -> bool:
        """Tell whether a tensor in memory is what is stored under its name, in the type of the one in memory."""
        import torch

        place = self.find(name)
        if place is None or place.shape != tuple(tensor.shape) or not place.shape:
            return False
        return all(
            torch.equal(place.read(start, stop).to(tensor.device, tensor.dtype), tensor[start:stop])
            for start, stop in cut_rows(place.shape)
        )

    def agrees(self, name: str, other: StoredWeights) -> bool:
        """Tell whether another checkpoint stores the same numbers under a name."""
        import torch

        place, theirs = self.find(name), other.find(name)
        if place is None or theirs is None or place.shape != theirs.shape or not place.shape:
            return False
        return place == theirs or all(
            torch.equal(place.read(start, stop).float(), theirs.read(start, stop).float())
            for start, stop in cut_rows(place.shape)
        )


def find_difference(
    tensors: Iterable[tuple[str, torch.Tensor]], stored: StoredWeights, own: StoredWeights | None = None
) -> str | None:
    """Return the name of the first tensor in memory that is not what a checkpoint stores; None when all are.

    Every number counts: a fine-tuned model may differ from its base in a few rows.

    Args:
        tensors: Those in memory, under a causal LM's names.
        stored: The checkpoint.
        own: The files that those in memory were read from. They speak for tensors that are quantised in memory; None:
            nothing does.

    Example:
        find_difference(model.named_parameters(), StoredWeights(Path("SmolLM2-135M-Instruct")))  # None: the same
    """
    for name, tensor in tensors:
        if tensor.is_floating_point():
            same = stored.holds(name, tensor)
        else:
            same = own is not None and stored.agrees(name, own)
        if not same:
            return name
    return None


def plain_name(key: str) -> str:
    """Return what a causal LM calls a tensor that a vision-language model's file calls `key`.

    Example:
        >>> plain_name("language_model.model.norm.weight"), plain_name("model.language_model.norm.weight")
        ('model.norm.weight', 'model.norm.weight')
        >>> plain_name("language_model.lm_head.weight"), plain_name("model.norm.weight")
        ('lm_head.weight', 'model.norm.weight')
    """
    key = re.sub(r"^language_model\.(?=(model|lm_head)\.)", "", key)
    return re.sub(r"^(model\.)?language_model\.", "model.", key)


def cut_rows(shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return where the blocks of a tensor begin and end, in rows.

    Example:
        >>> cut_rows((5, BLOCK_NUMBERS // 2))
        [(0, 2), (2, 4), (4, 5)]
    """
    step = max(1, BLOCK_NUMBERS // max(1, math.prod(shape[1:])))
    return [(start, min(start + step, shape[0])) for start in range(0, shape[0], step)] if shape else []
