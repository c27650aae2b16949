"""The rows that the shipped head on states is measured on: some of those that the shipped detector holds out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from llava.quality.detector_groups import hash_row, read_groups
from llava.quality.detector_rows import KeyedRow


def choose_measured(data: Path, sizes: Mapping[tuple[str, bool], int]) -> list[KeyedRow]:
    """Return held-out rows group after group, in the order of `read_groups`.

    Args:
        data: Folder of the data files, see `llava/quality/detector_rows.py`.
        sizes: How many of a (group, label), chosen by a hash; of one that is not named all are taken.
    """
    return take_by_hash(read_groups(data), sizes)


def take_by_hash(rows: Sequence[KeyedRow], sizes: Mapping[tuple[str, bool], int]) -> list[KeyedRow]:
    """Return the first rows by their hash of each (group, label) that `sizes` names, and all others."""
    left = dict(sizes)
    taken = set()
    for number in sorted(range(len(rows)), key=lambda number: hash_row(rows[number])):
        part = (rows[number].row.source, rows[number].row.harmful)
        if left.get(part, 1) > 0:
            taken.add(number)
            if part in left:
                left[part] -= 1
    return [keyed for number, keyed in enumerate(rows) if number in taken]
