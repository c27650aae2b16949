"""The rows that the shipped head on states is measured on: some of those that the shipped detector holds out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from llava.quality.detector_groups import JAILJUDGE, hash_row, read_groups
from llava.quality.detector_rows import JAILBREAKBENCH, MSTS, VICUNA, KeyedRow

MEASURED: dict[tuple[str, bool], int] = {
    (JAILBREAKBENCH, True): 70,
    (JAILBREAKBENCH, False): 50,
    (MSTS, False): 60,
    (VICUNA, False): 12,
    ("alpaca_eval", False): 20,
    ("t0_short", False): 40,
    ("coco_captions", False): 40,
    ("scienceqa_llava", False): 12,
    ("made_answers", False): 60,
    ("made_harm", True): 60,
    ("made_harm", False): 60,
    (JAILJUDGE, True): 20,
    (JAILJUDGE, False): 30,
}
"""How many of a (group, label) are measured; of one that is not named, all."""


def choose_measured(data: Path, sizes: Mapping[tuple[str, bool], int] | None = None) -> list[KeyedRow]:
    """Return the rows, group after group, in the order of `read_groups`.

    Args:
        data: Folder of the data files, see `llava/quality/detector_rows.py`.
        sizes: How many of a (group, label); None takes those of `MEASURED`.
    """
    return take_by_hash(read_groups(data), MEASURED if sizes is None else sizes)


def take_by_hash(rows: Sequence[KeyedRow], sizes: Mapping[tuple[str, bool], int]) -> list[KeyedRow]:
    """Return the first rows by their hash of each (group, label) that `sizes` names, and all others, in their order."""
    left = dict(sizes)
    taken = set()
    for number in sorted(range(len(rows)), key=lambda number: hash_row(rows[number])):
        part = (rows[number].row.source, rows[number].row.harmful)
        if left.get(part, 1) > 0:
            taken.add(number)
            if part in left:
                left[part] -= 1
    return [keyed for number, keyed in enumerate(rows) if number in taken]
