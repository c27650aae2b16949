"""Training rows of the detector and the detoxifier, read from any of the known data sets.

Own data is JSON Lines, JSON or CSV in one of these forms, one object a row (other columns are named in the log):

- detector: `{"prompt", "response", "harmful": true|false}`, with an optional loss `"weight"`;
- detector: `{"prompt", "chosen", "rejected"}`, a preference pair: `chosen` is the less harmful response. As labels
  such pairs are noisy, for both sides can be harmful, or neither;
- detoxifier: `{"prompt", "harmful_response", "harmless_response"}`.

PKU-SafeRLHF, BeaverTails, harmful_vs_unharmful and hh-rlhf are recognised by their columns
(`llava/data/training/formats.py`), labels in any form of
`llava/data/rows/labels.py`, from the hub or from a local copy (`llava/data/training/sources.py`).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from llava.data.rows.columns import UnreadColumns, rename_columns
from llava.data.rows.streams import Where
from llava.data.training.formats import KNOWN_COLUMNS, ParsedPair, ParsedResponse, find_format
from llava.data.training.refusals import choose_refusal
from llava.data.training.sources import MixturePart, iter_source
from llava.errors import InputError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DetectorRow:
    """One response with its label."""

    prompt: str
    """The question; may be empty where the data set has none."""
    response: str
    """The text to be judged; never empty."""
    harmful: bool
    """The label."""
    source: str
    """Short name of the data set; metrics are given by source."""
    weight: float = 1.0
    """Factor on this row's loss."""
    pair_id: str | None = None
    """Shared by the two responses of a pair."""
    chosen: bool | None = None
    """In a pair: whether this is the less harmful side. Both sides can carry the same label."""

    @property
    def group(self) -> str:
        """Key of the split: rows with the same prompt stay together."""
        return self.prompt if self.prompt.strip() else self.response


@dataclass(frozen=True)
class DetoxifierRow:
    """One response with the text that should replace it."""

    prompt: str
    """The question."""
    response: str
    """The response, mostly a harmful one."""
    target: str
    """The harmless response to learn."""
    source: str
    """Short name of the data set."""

    @property
    def harmless(self) -> bool:
        """Whether the response is harmless, so that it is to stay as it is."""
        return self.target == self.response

    @property
    def group(self) -> str:
        """Key of the split: rows with the same prompt stay together."""
        return self.prompt if self.prompt.strip() else self.response


def load_detector_rows(parts: Sequence[MixturePart], split: Literal["train", "test"] = "train") -> list[DetectorRow]:
    """Read the rows of a mixture for the detector.

    Args:
        parts: Where to read from, see `llava.data.training.sources.parse_mixture`.
        split: Which of a data set's own splits to read, where it has any.

    Raises:
        InputError: When a source is missing, its columns are not known, or a row is corrupt; the message names file
            and line. Empty responses are skipped, counted and logged.
    """
    rows: list[DetectorRow] = []
    for part in parts:
        rows += _read_part(part, split, _detector_rows)
    return rows


def load_detoxifier_rows(
    parts: Sequence[MixturePart], split: Literal["train", "test"] = "train", *, keep_harmless: bool = False
) -> list[DetoxifierRow]:
    """Read the rows of a mixture for the detoxifier; see `load_detector_rows`.

    A pair with a harmful and a harmless side gives one row. Where no harmless response is known (both sides of a pair
    unsafe, or a single unsafe response), the target is a refusal in one of several forms, fixed by the row's text.

    Args:
        parts: Where to read from.
        split: Which of a data set's own splits to read.
        keep_harmless: Make a row of a harmless response that stands alone, its target being itself: what the detector
            flags by mistake should come back as it was. False skips such responses.
    """
    build = partial(_detoxifier_rows, keep_harmless=keep_harmless)
    rows: list[DetoxifierRow] = []
    for part in parts:
        rows += _read_part(part, split, build)
    return rows


def _read_part(part: MixturePart, split: str, build: Any) -> list[Any]:
    """Read one source, build rows with `build` and log what was skipped."""
    rows: list[Any] = []
    skipped: Counter[str] = Counter()
    unread = UnreadColumns(part.source)
    known = None
    for where, raw in iter_source(part.source, split):
        row = rename_columns(raw, KNOWN_COLUMNS)
        if known is None or not known.matches(row):
            known = find_format(row, where)
        parsed = known.parse(row, where)
        unread.see(row, known.read_columns(row))
        rows += build(parsed, part.name, where, skipped)
    unread.log(logger)
    if skipped:
        logger.warning("%s: skipped %s", part.source, ", ".join(f"{n} {what}" for what, n in sorted(skipped.items())))
    if not rows:
        raise InputError(f"{part.source} has no usable row for this training; check its columns and labels")
    return rows


def _detector_rows(
    parsed: ParsedResponse | ParsedPair, source: str, where: Where, skipped: Counter[str]
) -> list[DetectorRow]:
    """Turn one parsed row into one labelled response, or the two of a pair."""
    if isinstance(parsed, ParsedResponse):
        if not parsed.response.strip():
            skipped["empty responses"] += 1
            return []
        return [DetectorRow(parsed.prompt, parsed.response, parsed.harmful, source, parsed.weight)]
    if not (parsed.chosen.strip() and parsed.rejected.strip()):
        skipped["pairs with an empty response"] += 1
        return []
    pair_id = f"{source}:{where.number}"
    return [
        DetectorRow(parsed.prompt, parsed.chosen, parsed.chosen_harmful, source, parsed.weight, pair_id, True),
        DetectorRow(parsed.prompt, parsed.rejected, parsed.rejected_harmful, source, parsed.weight, pair_id, False),
    ]


def _detoxifier_rows(
    parsed: ParsedResponse | ParsedPair,
    source: str,
    where: Where,
    skipped: Counter[str],
    keep_harmless: bool = False,
) -> list[DetoxifierRow]:
    """Turn one parsed row into no, one or two rewriting examples."""
    if isinstance(parsed, ParsedResponse):
        sides = [(parsed.response, parsed.harmful)]
    else:
        sides = [(parsed.chosen, parsed.chosen_harmful), (parsed.rejected, parsed.rejected_harmful)]
    if any(not text.strip() for text, _ in sides):
        skipped["rows with an empty response"] += 1
        return []
    if keep_harmless and isinstance(parsed, ParsedResponse) and not parsed.harmful:
        return [DetoxifierRow(parsed.prompt, parsed.response, parsed.response, source)]
    harmful = [text for text, is_harmful in sides if is_harmful]
    harmless = [text for text, is_harmful in sides if not is_harmful]
    if not harmful:
        skipped["rows without a harmful response"] += 1
        return []
    return [
        DetoxifierRow(parsed.prompt, text, harmless[0] if harmless else choose_refusal(parsed.prompt, text), source)
        for text in harmful
    ]
