"""From detoxifier rows to batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from llava.data.pairs import DetoxifierRow
from llava.protector.config import ProtectorConfig
from llava.protector.text import encode_detoxifier_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

IGNORED = -100
"""Label of positions that the loss passes over."""


@dataclass(frozen=True)
class EncodedRewrite:
    """A detoxifier row in tokens."""

    prompt: list[int]
    """Instruction, question and harmful response."""
    target: list[int]
    """The harmless response and eos."""
    row: DetoxifierRow
    """Where it comes from."""

    @property
    def input_ids(self) -> list[int]:
        """What the model reads."""
        return self.prompt + self.target


def encode_rewrites(
    tokenizer: PreTrainedTokenizerFast,
    config: ProtectorConfig,
    rows: Sequence[DetoxifierRow],
    max_target_tokens: int,
) -> list[EncodedRewrite]:
    """Tokenise rows.

    The prompt is tokenised alone, exactly as when the detoxifier is used, and the target follows it. Prompt and target
    have at most `config.max_length` tokens together; the harmful response gives way. A target of more than
    `max_target_tokens` is cut, and then has no eos: the model must not learn to stop in mid-sentence.
    """
    encoded = []
    for row in rows:
        target: list[int] = tokenizer(row.target.strip(), add_special_tokens=False, verbose=False)["input_ids"]
        target = [*target, tokenizer.eos_token_id][:max_target_tokens]
        room = config.max_length - len(target)
        prompt, _ = encode_detoxifier_prompt(tokenizer, config, row.prompt, row.response, room)
        encoded.append(EncodedRewrite(prompt, target, row))
    return encoded


class DetoxifierCollator:
    """Pads examples into one batch, on the right.

    Input: `EncodedRewrite` examples.

    Output, for B examples of at most T tokens: `input_ids`, `attention_mask` and `labels`, each (B, T). Labels are -100
    at the prompt and the padding.

    Example:
        >>> row = DetoxifierRow("q", "r", "t", "s")
        >>> examples = [EncodedRewrite([5, 6], [7], row), EncodedRewrite([8], [9], row)]
        >>> batch = DetoxifierCollator(pad_token_id=0)(examples)
        >>> batch["input_ids"].tolist(), batch["labels"].tolist()
        ([[5, 6, 7], [8, 9, 0]], [[-100, -100, 7], [-100, 9, -100]])
    """

    def __init__(self, pad_token_id: int):
        """Set the padding."""
        self.pad_token_id = pad_token_id

    def __call__(self, examples: Sequence[EncodedRewrite]) -> dict[str, torch.Tensor]:
        """Make the batch."""
        width = max(len(example.input_ids) for example in examples)
        input_ids = torch.full((len(examples), width), self.pad_token_id)  # (B, T)
        attention_mask = torch.zeros_like(input_ids)
        labels = torch.full_like(input_ids, IGNORED)
        for i, example in enumerate(examples):
            length = len(example.input_ids)
            input_ids[i, :length] = torch.tensor(example.input_ids)
            attention_mask[i, :length] = 1
            labels[i, len(example.prompt) : length] = torch.tensor(example.target)
        return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}
