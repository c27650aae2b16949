"""Small training files with a signal that a tiny model can learn: harmless stand-ins for the real data."""

from __future__ import annotations

import random
from pathlib import Path

from llava.files import write_jsonl

WORDS = ["bread", "flour", "water", "salt", "yeast", "lock", "wire", "paint", "song", "river", "garden", "stone"]

SINGLE_PRECISION = ("--base-dtype", "float32", "--bf16", "false")
"""Flags of a training whose result is compared closely, on whatever device it runs."""


def sentence(generator: random.Random, low: int = 3, high: int = 20) -> str:
    """Return some words."""
    return " ".join(generator.choices(WORDS, k=generator.randint(low, high)))


def write_labelled(path: Path, rows: int = 60, seed: int = 0) -> Path:
    """Write labelled responses, two to a prompt; the harmful ones end in `thorn`, the others in `bloom`."""
    generator = random.Random(seed)
    write_jsonl(
        path,
        (
            {
                "prompt": f"question {i // 2}",
                "response": f"{sentence(generator)} {'bloom' if i % 2 else 'thorn'}",
                "harmful": i % 2 == 0,
            }
            for i in range(rows)
        ),
    )
    return path


def write_pairs(path: Path, rows: int = 20, seed: int = 1) -> Path:
    """Write preference pairs."""
    generator = random.Random(seed)
    write_jsonl(
        path,
        (
            {
                "prompt": f"pair question {i}",
                "chosen": f"{sentence(generator)} bloom",
                "rejected": f"{sentence(generator)} thorn",
            }
            for i in range(rows)
        ),
    )
    return path


def write_rewrites(path: Path, rows: int = 30, seed: int = 2) -> Path:
    """Write rewriting examples."""
    generator = random.Random(seed)
    write_jsonl(
        path,
        (
            {
                "prompt": f"question {i}",
                "harmful_response": f"{sentence(generator)} thorn",
                "harmless_response": f"{sentence(generator, 3, 8)} bloom",
            }
            for i in range(rows)
        ),
    )
    return path
