"""Answers that a head on a model's states learns from: with their questions, images and labels, or without labels."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from llava.data.images import check_images
from llava.data.rows.columns import ALIASES, UnreadColumns, find_column, list_images, rename_columns
from llava.data.rows.streams import Where
from llava.data.training.formats import KNOWN_COLUMNS, ParsedResponse, find_format
from llava.data.training.pairs import DetectorRow
from llava.data.training.sources import MixturePart, iter_source
from llava.errors import InputError

logger = logging.getLogger(__name__)

IMAGES = ALIASES["image"]


@dataclass(frozen=True)
class AnswerRow(DetectorRow):
    """One answer with its label, its image, and what a teacher says of it."""

    image: str | None = None
    """Path of the image that the question is about."""
    taught: float | None = None
    """Harm score of a teacher, which counts instead of the label; 1 = harmful."""

    @property
    def target(self) -> float:
        """What a head is to say: 1 = harmful, 0 = harmless."""
        return float(self.harmful) if self.taught is None else self.taught


def to_answer_row(row: DetectorRow) -> AnswerRow:
    """Return a row of the detector's as one of a head's.

    Example:
        >>> to_answer_row(DetectorRow("How?", "So.", True, "x")).target
        1.0
    """
    return AnswerRow(row.prompt, row.response, row.harmful, row.source, row.weight, row.pair_id, row.chosen)


def build_loader(*, labelled: bool) -> Callable[[Sequence[MixturePart], Literal["train", "test"]], list[AnswerRow]]:
    """Return what reads the rows of a mixture.

    Args:
        labelled: Whether every row has a label, in any form that the detector's training reads; without labels rows
            need `response`, and `prompt` where it is known, and count as harmless until a teacher speaks.
    """

    def load(parts: Sequence[MixturePart], split: Literal["train", "test"] = "train") -> list[AnswerRow]:
        return [row for part in parts for row in _read_part(part, split, labelled)]

    return load


def _read_part(part: MixturePart, split: str, labelled: bool) -> list[AnswerRow]:
    """Read one source; images are looked for beside the file that names them."""
    rows: list[AnswerRow] = []
    unread = UnreadColumns(part.source)
    empty = 0
    for where, raw in iter_source(part.source, split):
        row = rename_columns(raw, (*KNOWN_COLUMNS, *IMAGES))
        found = _parse_labelled(row, where, part.name) if labelled else [_parse_plain(row, where, part.name)]
        image = find_image_path(row, where)
        unread.see(row, {*_read_columns(row, where, labelled), *IMAGES})
        kept = [replace(one, image=image) for one in found if one.response.strip()]
        empty += len(found) - len(kept)
        rows += kept
    unread.log(logger)
    if empty:
        logger.warning("%s: skipped %d empty responses", part.source, empty)
    if not rows:
        raise InputError(f"{part.source} has no usable row for this training; check its columns and labels")
    check_images(row.image for row in rows if row.image is not None)
    return rows


def _read_columns(row: Mapping[str, Any], where: Where, labelled: bool) -> set[str]:
    """Return the columns that are read."""
    if labelled:
        return find_format(row, where).read_columns(row)
    return {find_column(row, name) or "" for name in ("prompt", "response")}


def _parse_labelled(row: Mapping[str, Any], where: Where, source: str) -> list[AnswerRow]:
    """Return the labelled answer of a row, or the two of a pair."""
    parsed = find_format(row, where).parse(row, where)
    if isinstance(parsed, ParsedResponse):
        sides = [(parsed.response, parsed.harmful)]
    else:
        sides = [(parsed.chosen, parsed.chosen_harmful), (parsed.rejected, parsed.rejected_harmful)]
    return [AnswerRow(parsed.prompt, text, harmful, source, parsed.weight) for text, harmful in sides]


def _parse_plain(row: Mapping[str, Any], where: Where, source: str) -> AnswerRow:
    """Return the answer of a row without a label."""
    texts = []
    for name in ("prompt", "response"):
        column = find_column(row, name)
        value = row[column] if column else None
        if not isinstance(value, str) and not (name == "prompt" and value is None):
            raise InputError(f"{where} has no text in {column or name!r}; every row needs a response")
        texts.append(value or "")
    return AnswerRow(texts[0], texts[1], False, source)


def find_image_path(row: Mapping[str, Any], where: Where) -> str | None:
    """Return the path of a row's image, None where it has none.

    Raises:
        InputError: When it has several: an answer is about one.
    """
    paths = list_images({name: value for name, value in row.items() if value != ""}, where)
    if len(paths) > 1:
        raise InputError(f"{where} has {len(paths)} images; give one for each answer")
    if not paths:
        return None
    path = Path(paths[0])
    beside = Path(where.source).parent / path
    return str(path if path.is_absolute() or not beside.is_file() else beside)
