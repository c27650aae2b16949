"""The states of answers that are there already: the model reads question, image and answer as if it were answering."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from llava.model.tokenizers import hold_tokenizer

if TYPE_CHECKING:
    from PIL.Image import Image

    from llava.model.answering.generation import MultimodalModel

BATCH_TOKENS = 2048
"""Padded tokens of a forward pass."""
LONGEST_PROMPT = 1024
"""Characters of a question that are read: what stands behind them decides little, and costs what an answer does."""


@dataclass(frozen=True)
class Encoded:
    """Answers of one batch, ready to be read."""

    inputs: dict[str, torch.Tensor]
    """The model's inputs, padded on the left, so that the answers end together."""
    counts: list[int]
    """Tokens of each answer, which are the last ones of its row."""


def join_answer(prompt: str, answer: str) -> str:
    """Return a rendered prompt with its answer behind it, as the model would have written it.

    Example:
        >>> join_answer("USER: Hello ASSISTANT:", "Hi."), join_answer("assistant\\n", "Hi.")
        ('USER: Hello ASSISTANT: Hi.', 'assistant\\nHi.')
    """
    return f"{prompt}{answer}" if not prompt or prompt[-1].isspace() else f"{prompt} {answer}"


def cut_tokens(tokenizer: Any, text: str, longest: int) -> str:
    """Return the beginning of a text, at most so many tokens of it."""
    with hold_tokenizer(tokenizer):
        ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return text if len(ids) <= longest else str(tokenizer.decode(ids[:longest], clean_up_tokenization_spaces=False))


def encode_answers(
    model: MultimodalModel, prompts: Sequence[str], responses: Sequence[str], images: Sequence[Image | None] | None
) -> Encoded:
    """Return the inputs for questions with their answers, all with an image or all without.

    Args:
        model: The model.
        prompts: The questions.
        responses: Their answers.
        images: One image each, or None: no images.

    Raises:
        InputError: As `MultimodalModel.encode`.
    """
    rendered = model.render([prompt[:LONGEST_PROMPT] for prompt in prompts], has_image=images is not None)
    texts = [join_answer(text, model.defuse(response)) for text, response in zip(rendered, responses, strict=True)]
    with hold_tokenizer(model.tokenizer):
        before, whole = (model.tokenizer(part, verbose=False)["input_ids"] for part in (rendered, texts))
    counts = []
    for short, long in zip(before, whole, strict=True):
        # A token across the border counts as the answer's; an end token that a tokenizer adds is none of either.
        common = next(
            (i for i, (a, b) in enumerate(zip(short, long, strict=False)) if a != b), min(len(short), len(long))
        )
        counts.append(len(long) - common)
    return Encoded(model.encode_texts(texts, images), counts)


class AnswerReader:
    """Reads answers with the model that the states are of; of some layers, those above the highest do not run.

    What all prompts of a batch begin with (a system text, the head of the user's turn) is read once, where the model
    can go on from a cache.
    """

    def __init__(self, model: MultimodalModel, layers: Sequence[int]):
        """Take a model.

        Args:
            model: The model.
            layers: Numbers of the layers, from 1.
        """
        self.model = model
        self.layers = list(layers)

    def read(
        self, prompts: Sequence[str], responses: Sequence[str], images: Sequence[Image | None] | None = None
    ) -> list[list[torch.Tensor]]:
        """Return the states of answers, from one pass over questions, images and answers.

        Args:
            prompts: The questions, B of them.
            responses: Their answers.
            images: One image each, or None: no images.

        Returns:
            For each answer and layer the states of its tokens, (n, H).

        Raises:
            InputError: When the model has no such layer, or cannot take the input.
        """
        from llava.model.answering.decoding import can_prune
        from llava.model.answering.prompt_cache import add_cache
        from llava.model.answering.states import read_layers

        encoded = encode_answers(self.model, prompts, responses, images)
        inputs, view = encoded.inputs, self._view()
        if can_prune(self.model.model, inputs, {}):
            inputs = add_cache(view, inputs, [max(1, count) for count in encoded.counts])
        states = read_layers(view, inputs, self.layers)
        return [[layer[row, layer.shape[1] - count :] for layer in states] for row, count in enumerate(encoded.counts)]

    def _view(self) -> Any:
        """Return a private view of the model."""
        from llava.model.views import view_model

        view = view_model(self.model.model)
        view.generation_config = self.model.defaults
        return view
