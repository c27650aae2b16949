"""The labelled rows that the shipped judge is measured on: what the detector holds out, and the judge never saw.

GPTFuzz is the exception. Its questions that the detector holds out are split once more by their hash: from one half the
judge learns, on the other it is measured.
"""

from __future__ import annotations

from pathlib import Path

from llava.data.training.splits import split_of
from llava.quality.detector_groups import JAILJUDGE
from llava.quality.detector_rows import KeyedRow, load_rows, read_group

GPTFUZZ, DIASAFETY = "gptfuzz_responses", "diasafety_dialogues"
SECOND_SEED, SECOND_FRACTION = 2, 0.5
"""The second split of GPTFuzz's held-out questions."""
NOISY = (DIASAFETY, JAILJUDGE)
"""Sources outside the figures of all rows together: one's labels are wider than harm, the other is from afar."""


def is_measured(keyed: KeyedRow) -> bool:
    """Tell whether a row is one that the judge is measured on."""
    if keyed.side != "held_out":
        return False
    return keyed.row.source != GPTFUZZ or split_of(keyed.key, SECOND_SEED, SECOND_FRACTION) == "held_out"


def load_measured(data: Path) -> list[KeyedRow]:
    """Return the rows that the judge is measured on, `JAILJUDGE` last where its file is there.

    Args:
        data: Folder of the data files, see `llava/quality/detector_rows.py`.
    """
    rows = [keyed for keyed in load_rows(data) if is_measured(keyed)]
    elsewhere = data / f"{JAILJUDGE}.jsonl"
    return rows + (read_group(elsewhere) if elsewhere.is_file() else [])
