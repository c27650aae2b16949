"""From detector rows to batches."""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from llava.data.training.pairs import DetectorRow
from llava.model.tokenizers import encode_text
from llava.protector.classifier import pad_windows
from llava.protector.config import ProtectorConfig
from llava.protector.text import Window, encode_windows, render_detector_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EncodedRow:
    """A detector row in tokens."""

    windows: list[Window]
    """The windows that take part; at least one."""
    harmful: bool
    """The label."""
    weight: float
    """Factor on the loss."""
    label_smoothing: float
    """Weight of the uniform distribution in the target."""
    row: DetectorRow
    """Where it comes from."""
    tokens: int = 0
    """Tokens of the whole text, before it is cut into windows."""
    windows_left_out: int = 0
    """Windows of the text that take no part."""

    @property
    def cut(self) -> bool:
        """Whether a part of the response is not read."""
        return self.windows_left_out > 0

    @property
    def length(self) -> int:
        """Tokens of the longest window."""
        return max(len(window.ids) for window in self.windows)


Unit = tuple[EncodedRow, ...]
"""What is drawn together: one response, or the (chosen, rejected) responses of a pair."""


def encode_rows(
    tokenizer: PreTrainedTokenizerFast,
    config: ProtectorConfig,
    rows: Sequence[DetectorRow],
    *,
    max_windows: int | None = 1,
    prompt_dropout: float = 0.0,
    weights: dict[str, float] | None = None,
    label_smoothing: dict[str, float] | None = None,
) -> list[EncodedRow]:
    """Tokenise rows exactly as the detector does when it is used.

    A label belongs to a whole response. Of a long one, training looks at the first `max_windows` windows and takes the
    highest logit among them, as inference does over all windows. One window is the truncation of the paper and costs
    least; what is harmful usually shows there.

    Args:
        tokenizer: The base model's tokenizer.
        config: Text form and length.
        rows: Rows to encode.
        max_windows: Windows a response; None takes all.
        prompt_dropout: Share of rows encoded with an empty prompt. A picture may carry the harmful part of a question,
            so a detector that leans on the prompt's words would miss what matters.
        weights: Loss factor by source, on top of each row's own.
        label_smoothing: Label smoothing by source.
    """
    encoded = []
    for number, row in enumerate(rows):
        # Both sides of a pair lose their prompt, or neither: they must differ in the response alone.
        drop = random.Random(row.pair_id or str(number)).random() < prompt_dropout
        prompt = "" if drop else row.prompt
        every = encode_windows(tokenizer, config, prompt, row.response)
        windows = every[:max_windows]
        if windows:
            tokens = len(every[0].ids)
            if len(every) > 1:
                text, _ = render_detector_text(config, prompt, row.response)
                tokens = len(encode_text(tokenizer, text, verbose=False)["input_ids"])
            left_out = len(every) - len(windows)
            weight = row.weight * (weights or {}).get(row.source, 1.0)
            smoothing = (label_smoothing or {}).get(row.source, 0.0)
            encoded.append(EncodedRow(windows, row.harmful, weight, smoothing, row, tokens, left_out))
    if shortened := sum(row.cut for row in encoded):
        logger.info(
            "%d of %d responses are longer than what is read of them; --max-windows 0 reads all", shortened, len(rows)
        )
    if len(encoded) < len(rows):
        logger.warning("skipped %d rows without a token", len(rows) - len(encoded))
    return encoded


def form_units(rows: Sequence[EncodedRow], pairs: bool) -> list[Unit]:
    """Group rows into units.

    Args:
        rows: Encoded rows.
        pairs: Whether the two sides of a pair stay together, (chosen, rejected); a pairwise loss needs that.
    """
    if not pairs:
        return [(row,) for row in rows]
    sides: dict[str, dict[bool, EncodedRow]] = {}
    for row in rows:
        if row.row.pair_id is not None and row.row.chosen is not None:
            sides.setdefault(row.row.pair_id, {})[row.row.chosen] = row
    units: list[Unit] = [(pair[True], pair[False]) for pair in sides.values() if len(pair) == 2]
    paired = {unit[0].row.pair_id for unit in units}
    return units + [(row,) for row in rows if row.row.pair_id is None or row.row.pair_id not in paired]


def balance_factors(rows: Sequence[EncodedRow]) -> dict[bool, float]:
    """Return the factor of each label that gives both classes the same total weight, and leaves their sum as it is."""
    totals = {label: sum(row.weight for row in rows if row.harmful is label) for label in (True, False)}
    half = sum(totals.values()) / 2
    return {label: half / total if total else 0.0 for label, total in totals.items()}


class DetectorCollator:
    """Pads units into one batch, windows on the right.

    Input: units, each a tuple of one or two `EncodedRow`.

    Output, for U units with R responses in W windows of at most T tokens:
        input_ids, attention_mask, response_mask: (W, T), see `pad_windows`.
        row_of_window: Response of each window, (W,).
        labels: 1 = harmful, float, (R,).
        label_smoothing: (R,).
        weights: Loss factor over U; the two sides of a pair have half of theirs each, (R,).
        pairs: Response numbers of (chosen, rejected), (P, 2).
        pair_weights: Loss factor of each pair over U, (P,).

    Example:
        Two units, a single harmful response of two tokens and a pair, pad id 0:

        >>> row = DetectorRow("", "x", True, "s")
        >>> one = EncodedRow([Window([5, 6])], True, 1.0, 0.0, row)
        >>> safe = EncodedRow([Window([7])], False, 1.0, 0.0, row)
        >>> pair = (safe, EncodedRow([Window([8, 9, 3])], True, 1.0, 0.0, row))
        >>> batch = DetectorCollator(pad_token_id=0)([(one,), pair])
        >>> batch["input_ids"].tolist()
        [[5, 6, 0], [7, 0, 0], [8, 9, 3]]
        >>> batch["labels"].tolist(), batch["weights"].tolist(), batch["pairs"].tolist()
        ([1.0, 0.0, 1.0], [0.5, 0.25, 0.25], [[1, 2]])
    """

    def __init__(self, pad_token_id: int, balance: dict[bool, float] | None = None):
        """Set the padding, and the factor on the weight of each label (None: 1)."""
        self.pad_token_id = pad_token_id
        self.balance = balance or {True: 1.0, False: 1.0}

    def __call__(self, units: Sequence[Unit]) -> dict[str, Any]:
        """Make the batch."""
        rows = [row for unit in units for row in unit]
        windows = [(number, window) for number, row in enumerate(rows) for window in row.windows]
        weights: list[float] = []
        pairs: list[list[int]] = []
        pair_weights: list[float] = []
        for unit in units:
            if len(unit) == 2:
                pairs.append([len(weights), len(weights) + 1])
                pair_weights.append((unit[0].weight + unit[1].weight) / 2 / len(units))
            weights += [row.weight * self.balance[row.harmful] / len(unit) / len(units) for row in unit]
        return {
            **pad_windows([window for _, window in windows], self.pad_token_id),
            "row_of_window": torch.tensor([number for number, _ in windows]),
            "labels": torch.tensor([float(row.harmful) for row in rows]),
            "label_smoothing": torch.tensor([row.label_smoothing for row in rows]),
            "weights": torch.tensor(weights),
            "pairs": torch.tensor(pairs, dtype=torch.long).reshape(-1, 2),
            "pair_weights": torch.tensor(pair_weights),
        }
