"""What `--dry-run` prints: counts, labels, lengths, and the shape of a few examples."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from llava.train.rows.conversations import EncodedConversation
from llava.train.rows.detector import EncodedRow
from llava.train.rows.detoxifier import EncodedRewrite

PERCENTILES = (50, 90, 95, 99, 100)
EXAMPLES = 3
SHOWN_CHARACTERS = 100


def mask_text(text: str, characters: int = SHOWN_CHARACTERS) -> str:
    """Return the shape of a text without its words, for logs must not carry harmful content.

    Example:
        >>> mask_text("Mix 2 cups of Flour!")
        'xxx 9 xxxx xx xxxxx!'
    """
    shape = re.sub(r"\s+", " ", re.sub(r"[^\W\d_]", "x", re.sub(r"\d", "9", text)))
    return shape[:characters] + ("…" if len(shape) > characters else "")


def describe_lengths(lengths: Sequence[int]) -> str:
    """Return percentiles of token counts, in words.

    Example:
        >>> describe_lengths([10, 20, 30])
        'p50 20, p90 28, p95 29, p99 30, max 30'
    """
    if not lengths:
        return "none"
    values = np.percentile(lengths, PERCENTILES)
    names = [f"p{percent}" if percent < 100 else "max" for percent in PERCENTILES]
    return ", ".join(f"{name} {value:.0f}" for name, value in zip(names, values, strict=True))


def describe_detector_data(train: Sequence[EncodedRow], held_out: Sequence[EncodedRow]) -> str:
    """Return the report for a detector's rows."""
    lines = []
    for side, rows in (("training", train), ("held out", held_out)):
        lines.append(f"{side}: {len(rows)} responses to {len({row.row.group for row in rows})} prompts")
        counts = Counter((row.row.source, row.harmful) for row in rows)
        for source in sorted({row.row.source for row in rows}):
            lines.append(f"  {source}: {counts[source, True]} harmful, {counts[source, False]} harmless")
        lines.append(f"  tokens, whole: {describe_lengths([row.tokens for row in rows])}")
        lines.append(f"  tokens, longest window: {describe_lengths([row.length for row in rows])}")
        several = sum(len(row.windows) + row.windows_left_out > 1 for row in rows)
        lines.append(f"  responses of more than one window: {several}, cut: {sum(row.cut for row in rows)}")
    lines.append("examples (words masked):")
    for row in train[:: max(1, len(train) // EXAMPLES)][:EXAMPLES]:
        label = "harmful" if row.harmful else "harmless"
        lines.append(f"  {label}, {row.tokens} tokens, weight {row.weight:g}: {mask_text(row.row.response)}")
    return "\n".join(lines)


def describe_detoxifier_data(train: Sequence[EncodedRewrite], held_out: Sequence[EncodedRewrite]) -> str:
    """Return the report for a detoxifier's rows."""
    lines = []
    for side, rows in (("training", train), ("held out", held_out)):
        lines.append(f"{side}: {len(rows)} rows, {len({row.row.group for row in rows})} prompts")
        for source, count in sorted(Counter(row.row.source for row in rows).items()):
            lines.append(f"  {source}: {count}")
        lines.append(f"  prompt tokens, whole: {describe_lengths([row.prompt_tokens for row in rows])}")
        lines.append(f"  target tokens, whole: {describe_lengths([row.target_tokens for row in rows])}")
        lines.append(f"  prompt and target as trained: {describe_lengths([len(row.input_ids) for row in rows])}")
        responses, targets = sum(row.response_cut for row in rows), sum(row.target_cut for row in rows)
        lines.append(f"  response cut: {responses}, target cut: {targets}")
    lines.append("examples (words masked; the loss sees the part behind =>):")
    for row in train[:: max(1, len(train) // EXAMPLES)][:EXAMPLES]:
        half = SHOWN_CHARACTERS // 2
        lines.append(f"  {mask_text(row.row.response, half)} => {mask_text(row.row.target, half)}")
    return "\n".join(lines)


def describe_conversations(train: Sequence[EncodedConversation], held_out: Sequence[EncodedConversation]) -> str:
    """Return the report for a LLaVA's rows."""
    lines = []
    for side, rows in (("training", train), ("held out", held_out)):
        pictures = sum(bool(row.images) for row in rows)
        share = f" ({pictures / len(rows):.0%})" if rows else ""
        lines.append(f"{side}: {len(rows)} rows, {pictures} with pictures{share}, {len(rows) - pictures} text only")
        for source, count in sorted(Counter(row.row.source for row in rows).items()):
            lines.append(f"  {source}: {count}")
        lines.append(f"  answers in a row: {describe_lengths([len(row.answers) for row in rows])}")
        lines.append(f"  positions, pictures included: {describe_lengths([row.length for row in rows])}")
        lines.append(f"  target tokens: {describe_lengths([row.targets for row in rows])}")
        lines.append(f"  cut at the maximum length: {sum(row.cut for row in rows)}")
    lines.append("examples (words masked; the loss sees the part behind =>):")
    for row in train[:: max(1, len(train) // EXAMPLES)][:EXAMPLES]:
        half, turns = SHOWN_CHARACTERS // 2, [turn for turn in row.row.turns if turn.role != "system"]
        shown = f"{mask_text(turns[0].text, half)} => {mask_text(turns[1].text, half)}"
        lines.append(f"  {len(row.images)} pictures, {row.length} positions, {len(turns) // 2} answers: {shown}")
    return "\n".join(lines)
