"""From detoxifier rows to the tokenised prompts and completions that TRL trains on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llava.data.training.pairs import DetoxifierRow
from llava.model.tokenizers import break_up, encode_text
from llava.protector.config import ProtectorConfig
from llava.protector.text import encode_detoxifier_prompt, render_detoxifier_prompt

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class EncodedRewrite:
    """A detoxifier row in tokens."""

    prompt: list[int]
    """Instruction, question and harmful response."""
    target: list[int]
    """The harmless response and eos."""
    row: DetoxifierRow
    """Where it comes from."""
    response_cut: bool = False
    """Whether the harmful response was shortened to fit."""
    target_cut: bool = False
    """Whether the target was shortened; it then has no eos."""
    prompt_tokens: int = 0
    """Tokens of the whole prompt, before it was shortened."""
    target_tokens: int = 0
    """Tokens of the whole target and eos."""

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
        wanted = break_up(tokenizer, row.target.strip())
        target: list[int] = encode_text(tokenizer, wanted, add_special_tokens=False, verbose=False)["input_ids"]
        target_cut = len(target) >= max_target_tokens
        target_tokens = len(target) + 1
        target = [*target, tokenizer.eos_token_id][:max_target_tokens]
        room = config.max_length - len(target)
        prompt, response_cut = encode_detoxifier_prompt(tokenizer, config, row.prompt, row.response, room)
        prompt_tokens = len(prompt)
        if response_cut:
            text = render_detoxifier_prompt(config, row.prompt, row.response)
            prompt_tokens = len(encode_text(tokenizer, text, verbose=False)["input_ids"])
        encoded.append(EncodedRewrite(prompt, target, row, response_cut, target_cut, prompt_tokens, target_tokens))
    return encoded


def build_dataset(examples: Sequence[EncodedRewrite]) -> Dataset:
    """Return examples as TRL's SFTTrainer reads tokenised prompts and completions.

    Returns:
        A data set with `input_ids`, prompt and target, and `completion_mask`, 1 at the target: what carries the loss.

    Example:
        >>> row = DetoxifierRow("q", "r", "t", "s")
        >>> build_dataset([EncodedRewrite([5, 6], [7], row)])[0]
        {'input_ids': [5, 6, 7], 'completion_mask': [0, 0, 1]}
    """
    from datasets import Dataset

    return Dataset.from_dict(
        {
            "input_ids": [example.input_ids for example in examples],
            "completion_mask": [[0] * len(example.prompt) + [1] * len(example.target) for example in examples],
        }
    )


def count_cuts(examples: Sequence[EncodedRewrite]) -> str:
    """Return in words how many examples were shortened.

    Example:
        >>> row = DetoxifierRow("q", "r", "t", "s")
        >>> count_cuts([EncodedRewrite([5], [7], row, response_cut=True), EncodedRewrite([5], [7], row)])
        '2 rows: the response is cut in 1, the target in 0'
    """
    responses = sum(example.response_cut for example in examples)
    targets = sum(example.target_cut for example in examples)
    return f"{len(examples)} rows: the response is cut in {responses}, the target in {targets}"
