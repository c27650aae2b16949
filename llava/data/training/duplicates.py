"""Removing training examples that say the same as others, or the same as a held-out example.

Exact duplicates are found by their normalised text, near ones by the Jaccard similarity of their word triples,
estimated with MinHash and found with locality-sensitive hashing (the `datasketch` library, extra `train`).
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from llava.data.training.answers import AnswerRow
from llava.data.training.pairs import DetectorRow, DetoxifierRow
from llava.errors import InputError

if TYPE_CHECKING:
    from datasketch import MinHash

SHINGLE_WORDS = 3
PERMUTATIONS = 128
"""Hash functions of a MinHash; the estimate's standard error is at most 1/(2·sqrt(128)), about 0.044."""

Row = TypeVar("Row", DetectorRow, DetoxifierRow, AnswerRow)
Unit = tuple[int, ...]
"""Positions of the rows that stay or go together."""


def drop_duplicates(
    rows: Sequence[Row], held_out: Sequence[Row] = (), threshold: float | None = None
) -> tuple[list[Row], int, int]:
    """Drop training rows that repeat an earlier one, or one of the held-out rows, which are never touched.

    The two sides of a pair count as one text: a refusal that answers many prompts is no duplicate, the same refusal to
    the same prompt is.

    Args:
        rows: Training rows; the first of several duplicates stays.
        held_out: Rows that none of the training rows may repeat.
        threshold: Jaccard similarity of word triples in (0, 1] from which two texts count as duplicates; None looks
            for equal texts only.

    Returns:
        The rows kept in their order, how many repeated a training row, and how many repeated a held-out row.

    Raises:
        InputError: When a threshold is given and `datasketch` is not installed, or the threshold is out of range.
    """
    index: Any = NearIndex(threshold) if threshold is not None else ExactIndex()
    for unit in form_units(held_out):
        index.add(index.digest(unit_text(held_out, unit)))
    digests = {unit: index.digest(unit_text(rows, unit)) for unit in form_units(rows)}
    leaked = {position for unit, digest in digests.items() if index.contains(digest) for position in unit}
    repeated: set[int] = set()
    for unit, digest in digests.items():
        if unit[0] in leaked:
            continue
        if index.contains(digest):
            repeated.update(unit)
        else:
            index.add(digest)
    kept = [row for position, row in enumerate(rows) if position not in leaked and position not in repeated]
    return kept, len(repeated), len(leaked)


def form_units(rows: Sequence[Row]) -> list[Unit]:
    """Return the positions of each pair's rows together, and every other row alone, in order of first appearance."""
    units: dict[str, list[int]] = {}
    for position, row in enumerate(rows):
        pair_id = row.pair_id if isinstance(row, DetectorRow) else None
        units.setdefault(pair_id if pair_id is not None else f"#{position}", []).append(position)
    return [tuple(positions) for positions in units.values()]


def unit_text(rows: Sequence[Row], unit: Unit) -> str:
    """Return the normalised text of a unit: prompt, responses and, for the detoxifier, the target."""
    parts = [rows[unit[0]].prompt]
    for position in unit:
        row = rows[position]
        parts += [row.response] if isinstance(row, DetectorRow) else [row.response, row.target]
    return normalise_text("\n".join(parts))


def normalise_text(text: str) -> str:
    """Return a text without differences of case, Unicode form, punctuation and spacing.

    Example:
        >>> normalise_text("Mix  flour,\\nand WATER!")
        'mix flour and water'
    """
    return " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold())) or text.strip()


class ExactIndex:
    """Texts seen so far, by hash."""

    def __init__(self) -> None:
        """Start empty."""
        self.seen: set[bytes] = set()

    def digest(self, text: str) -> bytes:
        """Return what stands for a text here."""
        return hashlib.sha256(text.encode()).digest()

    def add(self, digest: bytes) -> None:
        """Remember a text."""
        self.seen.add(digest)

    def contains(self, digest: bytes) -> bool:
        """Tell whether an equal text was added."""
        return digest in self.seen


class NearIndex:
    """Texts seen so far, by the MinHash of their word triples."""

    def __init__(self, threshold: float):
        """Start empty.

        Args:
            threshold: Jaccard similarity in (0, 1] from which two texts are near.
        """
        if not 0 < threshold <= 1:
            raise InputError(f"--near-duplicates is {threshold}; it must be above 0 and at most 1")
        try:
            from datasketch import MinHashLSH
        except ImportError:
            raise InputError("--near-duplicates needs datasketch; install it: pip install datasketch") from None
        self.threshold = threshold
        self.hashes: dict[str, MinHash] = {}
        # The buckets are tuned below the threshold so that they miss little; what they return is checked again.
        self.buckets = MinHashLSH(threshold=max(0.1, threshold - 0.1), num_perm=PERMUTATIONS)

    def digest(self, text: str) -> MinHash:
        """Return the MinHash of a normalised text's word triples."""
        from datasketch import MinHash

        sketch = MinHash(num_perm=PERMUTATIONS)
        sketch.update_batch([shingle.encode() for shingle in shingles(text)])
        return sketch

    def add(self, digest: MinHash) -> None:
        """Remember a text."""
        key = str(len(self.hashes))
        self.hashes[key] = digest
        self.buckets.insert(key, digest)

    def contains(self, digest: MinHash) -> bool:
        """Tell whether a near text was added."""
        return any(self.hashes[key].jaccard(digest) >= self.threshold for key in self.buckets.query(digest))


def shingles(text: str) -> Iterable[str]:
    """Return the runs of three words of a text; a shorter text is one run.

    Example:
        >>> sorted(shingles("mix flour and water"))
        ['flour and water', 'mix flour and']
    """
    words = text.split()
    last = max(1, len(words) - SHINGLE_WORDS + 1)
    return {" ".join(words[i : i + SHINGLE_WORDS]) for i in range(last)}
