"""The rows of the shipped detector by group: trained on, looked at while training, held out.

What belongs together stays on one side: the answers to a prompt, MSTS's by its `case_id`. Where many answers share one
general prompt ("Describe the image.") each answer is on its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from llava.data.rows.labels import read_label
from llava.data.training.made_answers import SOURCE as MADE
from llava.data.training.made_answers import make_answers, make_harm
from llava.data.training.pairs import DetectorRow
from llava.data.training.splits import split_of
from llava.errors import InputError
from llava.files import iter_jsonl

JAILBREAKBENCH, VICUNA, MSTS = "jailbreakbench_responses", "vicuna80_responses", "msts_responses"
BENIGN = ("alpaca_eval", "t0_short", "coco_captions", "scienceqa_llava")
"""Sources inside `benign_answers.jsonl`; each is a group of its own."""
FILES = (
    *(JAILBREAKBENCH, VICUNA, MSTS, "benign_answers"),
    *("gptfuzz_responses", "ablation_responses", "self_defense_responses", "diasafety_dialogues"),
)
ORDINARY = (VICUNA, *BENIGN, MADE)
"""Groups of ordinary answers: nothing in them is harmful, and hardly anything may be flagged."""
GENERAL_PROMPTS = ("coco_captions", "scienceqa_llava")
"""Groups in which a handful of prompts stand before all answers, so that the answer is the key of the split."""
MADE_EACH, HARM_EACH = 110, 70
"""Made answers of every kind; of short harmful ones and those beside them, of every kind and label."""
SIDES = ("train", "dev", "held_out")
DEV_FRACTION, DEV_SEED = 0.15, 1
"""Share of the prompts left to training that is only looked at: thresholds and weights are chosen on it."""


class KeyedRow(NamedTuple):
    """A row with what decides its side."""

    row: DetectorRow
    """Its `source` is the group's name."""
    key: str
    """Rows of one key are on one side."""

    @property
    def side(self) -> str:
        """`train`, `dev` or `held_out`."""
        if split_of(self.key) == "held_out":
            return "held_out"
        return "dev" if split_of(self.key, DEV_SEED, DEV_FRACTION) == "held_out" else "train"


def load_rows(data: Path) -> list[KeyedRow]:
    """Read all groups.

    Args:
        data: Folder with `FILES`, each `NAME.jsonl` with `prompt`, `response` and a label.

    Returns:
        The rows with a response, the made answers last. Those of `MADE_HARM` are kept together by the sentence they are
        made from, so that a held-out one is of a sentence that was not trained on.

    Raises:
        InputError: When a file is missing or a row has no label.
    """
    found = [keyed for name in FILES for keyed in read_group(data / f"{name}.jsonl")]
    found += [KeyedRow(row, f"{row.prompt}\n{row.response}") for row in make_answers(MADE_EACH)]
    return found + [KeyedRow(*made) for made in make_harm(HARM_EACH)]


def read_group(path: Path) -> list[KeyedRow]:
    """Read one file; see `load_rows`."""
    found = []
    for number, raw in iter_jsonl(path, "data file"):
        harmful = read_label(raw, f"{path} line {number}")
        if harmful is None:
            raise InputError(f"{path} line {number} has no label; add harmful: true or false")
        prompt, response = str(raw.get("prompt") or ""), str(raw.get("response") or "")
        if not response.strip():
            continue
        source = str(raw["source"]) if raw.get("source") in BENIGN else path.stem
        row = DetectorRow(prompt, response, harmful, source)
        found.append(KeyedRow(row, str(raw.get("case_id") or (response if source in GENERAL_PROMPTS else row.group))))
    return found


def load_side(data: Path, side: str) -> list[DetectorRow]:
    """Return the rows of one side, `train`, `dev` or `held_out`, in the order of the files."""
    return [keyed.row for keyed in load_rows(data) if keyed.side == side]
