"""The split into training and held-out rows: by prompt, never by row, and the same wherever it is computed.

Several responses to one prompt share its words, so a split by row would let a model recognise the prompt. The split
depends on nothing but the prompt's text and a seed: no file needs to be kept, and adding rows moves no other row.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from typing import Protocol, TypeVar

SALT = "mllm-protector/split/1"
"""Part of every hash; changing it would mix training rows into the held-out part of published results."""

HELD_OUT_FRACTION = 0.2
SPLIT_SEED = 0


class Grouped(Protocol):
    """Anything with a `group`, the key that the split goes by."""

    @property
    def group(self) -> str:
        """Key that decides the side."""


RowT = TypeVar("RowT", bound=Grouped)


def normalise_prompt(prompt: str) -> str:
    """Return the prompt without differences of case, Unicode form, spacing and punctuation.

    Example:
        >>> normalise_prompt("  How do I\\nbake bread?") == normalise_prompt("how do I bake BREAD")
        True
    """
    text = unicodedata.normalize("NFKC", prompt).casefold()
    words = re.findall(r"\w+", text)
    return " ".join(words) if words else text.strip()


def split_of(prompt: str, seed: int = SPLIT_SEED, fraction: float = HELD_OUT_FRACTION) -> str:
    """Return `train` or `held_out` for a prompt.

    Args:
        prompt: The prompt, or another key that rows which belong together share.
        seed: Another seed gives another, independent split.
        fraction: Share of prompts held out, in [0, 1].

    Example:
        >>> split_of("How do I bake bread?"), split_of("How do I bake cake?")
        ('held_out', 'train')
    """
    digest = hashlib.sha256(f"{SALT}/{seed}/{normalise_prompt(prompt)}".encode()).digest()
    return "held_out" if int.from_bytes(digest[:8], "big") < fraction * 2**64 else "train"


def split_rows(
    rows: Iterable[RowT], seed: int = SPLIT_SEED, fraction: float = HELD_OUT_FRACTION
) -> tuple[list[RowT], list[RowT]]:
    """Return the training rows and the held-out rows, each in the order given."""
    sides: dict[str, list[RowT]] = {"train": [], "held_out": []}
    for row in rows:
        sides[split_of(row.group, seed, fraction)].append(row)
    return sides["train"], sides["held_out"]
