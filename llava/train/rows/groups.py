"""Rows by source: what a source weighs, and prefixes of responses as rows of their own."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from llava.data.training.pairs import DetectorRow
from llava.train.rows.detector import EncodedRow


def weigh_groups(rows: Sequence[EncodedRow], totals: Mapping[str, float]) -> list[EncodedRow]:
    """Give the rows of a source a total weight, shared evenly by its two labels.

    A small source then counts as much as a large one, and no source is a sign of harm by itself because most of it
    is harmful. The mean weight of all rows stays what it was.

    Args:
        rows: Encoded rows.
        totals: Weight of each source; one that is absent weighs 1. Without any, the rows stay as they are.

    Example:
        >>> row = DetectorRow("", "x", True, "a")
        >>> rows = [EncodedRow([], label, 1.0, 0.0, replace(row, harmful=label)) for label in (True, False, False)]
        >>> [row.weight for row in weigh_groups(rows, {"a": 2.0})]
        [1.5, 0.75, 0.75]
    """
    if not totals:
        return list(rows)
    sums: Counter[tuple[str, bool]] = Counter()
    for row in rows:
        sums[row.row.source, row.harmful] += row.weight  # type: ignore[assignment]
    labels = Counter(source for (source, _), total in sums.items() if total > 0)
    wanted = {part: totals.get(part[0], 1.0) / labels[part[0]] for part, total in sums.items() if total > 0}
    scale = sum(sums.values()) / (sum(wanted.values()) or 1.0)
    factors = {part: scale * share / sums[part] for part, share in wanted.items()}
    return [replace(row, weight=row.weight * factors.get((row.row.source, row.harmful), 0.0)) for row in rows]


def add_prefixes(rows: Sequence[DetectorRow], share: float, seed: int = 0) -> list[DetectorRow]:
    """Return the rows, and behind them prefixes of some, so that the score of an unfinished response means something.

    Every prefix of a harmless response is harmless. A harmful one becomes harmful somewhere, nobody knows where: only
    prefixes that go past its half keep the label. Sides of a pair get none, for their label is a guess.

    Args:
        rows: Training rows.
        share: How many of them get a prefix.
        seed: Seed of which, and where they end.

    Example:
        >>> rows = [DetectorRow("Why?", "One two three four.", True, "s")]
        >>> added = add_prefixes(rows, 1.0)[1]
        >>> added.harmful, added.response in ("One two three", "One two")
        (True, True)
    """
    draw = random.Random(seed)
    added = []
    for row in rows:
        ends = [found.end() for found in re.finditer(r"\S+", row.response)][:-1]
        if row.harmful:
            ends = ends[max(0, (len(ends) - 1) // 2) :]
        if draw.random() < share and ends and row.pair_id is None:
            added.append(replace(row, response=row.response[: draw.choice(ends)]))
    return [*rows, *added]
