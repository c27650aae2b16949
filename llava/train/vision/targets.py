"""From synthetic pictures to what the tower learns: pixels, and the token that each cell of its grid should say.

A tower of `grid` × `grid` cells says a text in reading order: row by row, each token in the cell that its middle lies
in. Where two would share a cell the later one moves on to the next, so that the order is kept. A shape is said where
its middle lies: its colour in that cell, its form in the next.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image

from llava.data.pictures import COLOURS, NUMBERS, SHAPES, Line, Picture, Vocabulary, plural

BLANK = -1
"""Target of a cell that says nothing."""
MEAN_COLOUR = (122, 116, 104)
"""CLIP's mean colour, with which LLaVA's image processor pads a picture to a square."""
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,!?:'"
"""Characters that the letter head tells apart; capitals count as small letters."""
PLACES = 15
"""Places of a spelling: whether a space comes first, then the letters of the token."""


@dataclass
class Batch:
    """Pictures and targets as tensors."""

    pixels: torch.Tensor
    """uint8, (B, 3, side, side)."""
    tokens: torch.Tensor
    """Class of each cell or BLANK, (B, grid * grid)."""
    letters: torch.Tensor
    """Letter of each cell of the finer grid, 0 for none, (B, 2 * grid, 2 * grid)."""
    pictures: list[Picture] = field(default_factory=list)
    """Where they come from."""


class TokenClasses:
    """The tokens of the language model that the tower may say, numbered from 0.

    Args:
        tokenizer: Tokenizer of the language model.
        vocabulary: Words; they are said in small letters.
    """

    def __init__(self, tokenizer: Any, vocabulary: Vocabulary) -> None:
        self.tokenizer = tokenizer
        words = [*vocabulary.common, *vocabulary.rare]
        words += [f"{word}{mark}" for word in ("on", "day") for mark in (*".,!?:", "'s", "!.", "?.", ",.", ":.", "..")]
        words += [*NUMBERS, *COLOURS, *SHAPES, *(plural(shape, 2) for shape in SHAPES), "1.", "2.", "3."]
        words += [str(number) for number in range(2031)]
        encoded = tokenizer([f" {word}" for word in words], add_special_tokens=False)["input_ids"]
        self.ids = sorted({token for tokens in encoded for token in tokens})
        """Token id of every class."""
        self._class_of = {token: number for number, token in enumerate(self.ids)}

    def encode(self, text: str) -> tuple[list[int], list[tuple[int, int]]] | None:
        """Return classes and character spans of `text` after a space; None when a token has no class."""
        encoded = self.tokenizer(f" {text}", add_special_tokens=False, return_offsets_mapping=True)
        classes = [self._class_of.get(token, BLANK) for token in encoded["input_ids"]]
        if BLANK in classes:
            return None
        spans = [(max(0, start - 1), end - 1) for start, end in encoded["offset_mapping"]]
        # A byte-level token may count the space before its word as its own.
        return classes, [(start + (len(text[start:end]) - len(text[start:end].lstrip())), end) for start, end in spans]

    def first_of(self, words: Iterable[str]) -> list[int]:
        """Return the class that each word begins with, in order, each once."""
        found = (self.encode(word) for word in words)
        return sorted({classes[0] for classes, _ in filter(None, found)})

    def lexicon(self) -> torch.Tensor:
        """Return the spelling of every class: first whether a space precedes it, then letters from 1, (K, PLACES)."""
        table = torch.zeros(len(self.ids), PLACES, dtype=torch.uint8)
        for number, token in enumerate(self.ids):
            text = self.tokenizer.decode([token]).lower()
            table[number, 0] = text.startswith(" ")
            for place, letter in enumerate(text.strip()[: PLACES - 1], 1):
                table[number, place] = LETTERS.find(letter) + 1
        return table

    def decode(self, classes: Iterable[int]) -> str:
        """Return the text of a sequence of classes, blanks left out."""
        return str(self.tokenizer.decode([self.ids[number] for number in classes if number != BLANK])).strip()


class TargetBuilder:
    """Turns pictures into batches.

    Args:
        classes: Tokens that can be said.
        side: Side of the tower's input in pixels.
        grid: Cells along a side.
    """

    def __init__(self, classes: TokenClasses, side: int, grid: int) -> None:
        self.classes, self.side, self.grid = classes, side, grid

    def batch(self, pictures: Iterable[Picture], size: int) -> Batch:
        """Return a batch of the first `size` pictures that fit the grid."""
        fitting = ((picture, targets) for picture in pictures if (targets := self.targets(picture)) is not None)
        rows = list(itertools.islice(fitting, size))
        pixels = np.stack([square_pixels(picture.image, self.side) for picture, _ in rows])
        return Batch(
            torch.from_numpy(pixels).permute(0, 3, 1, 2),
            torch.from_numpy(np.stack([tokens for _, (tokens, _) in rows])),
            torch.from_numpy(np.stack([letters for _, (_, letters) in rows])),
            [picture for picture, _ in rows],
        )

    def targets(self, picture: Picture) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the class of every cell and the letter of every finer cell; None for a text that does not fit."""
        width, height = picture.image.size
        longest = max(width, height)
        scale, left, top = self.side / longest, (longest - width) // 2, (longest - height) // 2
        cell = self.side / self.grid
        tokens = np.full((self.grid, self.grid), BLANK, dtype=np.int64)
        letters = np.zeros((2 * self.grid, 2 * self.grid), dtype=np.int64)
        for thing in picture.things:
            encoded = self.classes.encode(thing.name)
            if encoded is None or len(encoded[0]) > self.grid:
                return None
            number = len(encoded[0])
            row = min(self.grid - 1, int((thing.y + top) * scale / cell))
            column = min(self.grid - number, int((thing.x + left) * scale / cell))
            if (tokens[row, column : column + number] != BLANK).any():
                return None
            tokens[row, column : column + number] = encoded[0]
        rows = spread([(line.y + top) * scale / cell for line in picture.lines], self.grid)
        if rows is None:
            return None
        for line, row in zip(picture.lines, rows, strict=True):
            edges = [(edge + left) * scale / cell for edge in line.edges]
            encoded = self.classes.encode(line.text)
            if encoded is None:
                return None
            classes, spans = encoded
            columns = spread([(edges[start] + edges[end]) / 2 for start, end in spans], self.grid)
            if columns is None or (tokens[row, columns] != BLANK).any():
                return None
            tokens[row, columns] = classes
            self._mark_letters(letters, line, (line.y + top) * scale / cell, edges)
        return tokens.reshape(-1), letters

    def _mark_letters(self, letters: np.ndarray, line: Line, y: float, edges: Sequence[float]) -> None:
        """Put each letter of a line into the finer cell of its middle."""
        last = 2 * self.grid - 1
        row = min(last, max(0, int(2 * y)))
        for number, character in enumerate(line.text.lower()):
            column = min(last, max(0, int(edges[number] + edges[number + 1])))
            letters[row, column] = LETTERS.find(character) + 1


def spread(wanted: Sequence[float], cells: int) -> list[int] | None:
    """Give rising positions the cells that they lie in, each its own, later ones moving on.

    Args:
        wanted: Positions in units of cells, rising.
        cells: How many cells there are.

    Returns:
        The cells, strictly rising; None when there are more positions than cells.

    Example:
        >>> spread([0.2, 0.9, 3.5], cells=4), spread([2.1, 2.9, 3.5], cells=4), spread([0, 1, 2], cells=2)
        ([0, 1, 3], [1, 2, 3], None)
    """
    if len(wanted) > cells:
        return None
    places: list[int] = []
    for position in wanted:
        places.append(max(int(position), places[-1] + 1 if places else 0))
    for back in range(1, len(places) + 1):
        places[-back] = min(places[-back], cells - back)
    return places


def square_pixels(image: Image.Image, side: int) -> np.ndarray:
    """Pad a picture to a square and shrink it as LLaVA's image processor does.

    Returns:
        uint8 array (side, side, 3).
    """
    longest = max(image.size)
    if image.size != (longest, longest):
        square = Image.new("RGB", (longest, longest), MEAN_COLOUR)
        square.paste(image, ((longest - image.width) // 2, (longest - image.height) // 2))
        image = square
    return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC))


def seeded(seed: int, part: str) -> random.Random:
    """Return a source of chance of its own for each part of a run, so that no part disturbs another."""
    return random.Random(f"{seed}:{part}")
