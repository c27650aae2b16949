"""The second stage: the frozen language model answers questions about pictures, and only the slots learn.

A slot is what the language model sees at a position that no token of the picture takes: the prefix before them, which
is always the same, and the padding behind them. The tokens themselves are shown as the language model's own
embeddings, as the tower shows them once it is sure; so this stage needs no tower and no pixels.
"""

from __future__ import annotations

import itertools
import logging
import random
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - PyTorch's own name

from llava.data.pictures import Picture
from llava.data.pictures.questions import ask
from llava.model.embedded.base_lm import BASE_ID, resolve_base_name
from llava.model.embedded.stack import CHAT_TEMPLATE, EMBEDDED
from llava.model.failures import explain_loading
from llava.model.quiet import quiet_transformers

logger = logging.getLogger(__name__)

IGNORED = -100
PREFIX_TEXT = 'The picture shows the text: "'
PADDING_TEXT, CLOSING_TEXT = "\n", '". That is the text'
"""What the slots say before they are trained."""


def load_language_model(name: str, dtype: torch.dtype = torch.bfloat16) -> tuple[str, Any, Any]:
    """Return name, frozen model and tokenizer with the embedded model's chat template.

    Args:
        name: `embedded`, a folder or a hub id.
        dtype: Of the weights.

    Raises:
        InputError: When it cannot be loaded.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    named = BASE_ID if name == EMBEDDED else name
    folder = resolve_base_name(named)
    with quiet_transformers(), explain_loading(f"language model {name}", "check its files"):
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    tokenizer.chat_template = CHAT_TEMPLATE
    return named, model.requires_grad_(False), tokenizer


class Speaker(nn.Module):
    """Slots before a frozen language model.

    Args:
        language_model: Causal language model; its weights are not changed.
        tokenizer: Its tokenizer, with a chat template that places pictures.
        num_slots: Positions of a picture.
        num_prefix_slots: How many of them are the prefix.
    """

    def __init__(self, language_model: Any, tokenizer: Any, num_slots: int, num_prefix_slots: int) -> None:
        super().__init__()
        self.tokenizer, self.num_prefix_slots = tokenizer, num_prefix_slots
        self.language_model = language_model.eval().requires_grad_(False)
        prefix, padding, closing = (self._ids(text) for text in (PREFIX_TEXT, PADDING_TEXT, CLOSING_TEXT))
        behind = num_slots - num_prefix_slots
        prefix = (padding * num_prefix_slots + prefix)[-num_prefix_slots:]
        ids = [*prefix, *(padding * behind + closing)[-behind:]]
        self.slots = nn.Parameter(self._embed(ids).clone())
        self._before = self._ids(self._chat("")[0])

    def positions(self, tokens: Sequence[int]) -> torch.Tensor:
        """Return the embeddings that a picture of `tokens` becomes, (S, hidden)."""
        room = len(self.slots) - self.num_prefix_slots
        shown = self._embed(list(tokens)[:room])
        return torch.cat([self.slots[: self.num_prefix_slots], shown, self.slots[self.num_prefix_slots + len(shown) :]])

    def loss(
        self,
        pictures: Sequence[Sequence[int]],
        questions: Sequence[str],
        answers: Sequence[str],
        cut: Sequence[bool] | None = None,
    ) -> torch.Tensor:
        """Return the mean cross-entropy of the tokens of each answer, (B,).

        Args:
            pictures: Token ids that each picture shows.
            questions: One for each picture.
            answers: The right answers.
            cut: Which answers are only the beginning of one, so that nothing is learned about their end; None for none.
        """
        rows, labels = [], []
        for tokens, question, answer, is_cut in zip(
            pictures, questions, answers, cut or [False] * len(answers), strict=True
        ):
            after = self._ids(self._chat(question)[1])
            target = [*self._ids(answer), *([] if is_cut else [self.tokenizer.eos_token_id])]
            rows.append(torch.cat([self._embed(self._before), self.positions(tokens), self._embed(after + target)]))
            labels.append([IGNORED] * (len(rows[-1]) - len(target)) + target)
        # One length for all steps: a CPU compiles its matrix products anew for every shape that it meets.
        length = -(-max(len(row) for row in rows) // 16) * 16
        inputs = torch.stack([F.pad(row, (0, 0, 0, length - len(row))) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
        targets = torch.tensor([label + [IGNORED] * (length - len(label)) for label in labels])[:, 1:]
        hidden = self.language_model.model(
            inputs_embeds=inputs.to(self.language_model.dtype), attention_mask=mask, use_cache=False
        ).last_hidden_state[:, :-1]
        answered = targets != IGNORED
        scores = self.language_model.lm_head(hidden[answered]).float()
        losses = F.cross_entropy(scores, targets[answered], reduction="none")
        return torch.zeros(len(rows)).index_add(0, answered.nonzero()[:, 0], losses) / answered.sum(dim=1)

    def _chat(self, question: str) -> tuple[str, str]:
        """Return the text before and after the picture."""
        content = [{"type": "image"}, {"type": "text", "text": question}]
        text = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        before, after = text.split("<image>")
        return before, after

    def _ids(self, text: str) -> list[int]:
        """Return the tokens of a text."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _embed(self, ids: list[int]) -> torch.Tensor:
        """Return the language model's embeddings of tokens."""
        return self.language_model.get_input_embeddings()(torch.tensor(ids, dtype=torch.long)).float()


class Lesson(NamedTuple):
    """A question about a picture, and what is to be said."""

    tokens: list[int]
    """Ids of what the picture shows."""
    question: str
    """What is asked."""
    answer: str
    """The right answer."""
    kind: str
    """What the log counts it among."""
    cut: bool = False
    """Whether the answer is only the beginning of one."""


def ask_pictures(pictures: Iterable[tuple[Picture, list[int]]], rng: random.Random) -> Iterator[Lesson]:
    """Yield a lesson about each picture.

    Args:
        pictures: Pictures, each with the token ids that it shows.
        rng: Chooses the questions.
    """
    for picture, tokens in pictures:
        kind, question, answer = ask(rng, picture)
        yield Lesson(tokens, question, answer, kind)


def train_slots(
    speaker: Speaker,
    lessons: Iterator[Lesson],
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    logging_steps: int,
) -> None:
    """Train the slots through the language model.

    Args:
        speaker: What is trained.
        lessons: What is learned, without end.
        steps: Optimiser steps.
        batch_size: Questions a step.
        learning_rate: Peak rate; it rises for ten steps and falls to a tenth.
        logging_steps: Steps between log lines.
    """
    optimiser = torch.optim.Adam([speaker.slots], lr=learning_rate, betas=(0.9, 0.98))
    running: dict[str, float] = {}
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * min(1.0, (step + 1) / 10) * (1 - 0.9 * step / steps)
        batch = list(itertools.islice(lessons, batch_size))
        losses = speaker.loss(
            [lesson.tokens for lesson in batch],
            [lesson.question for lesson in batch],
            [lesson.answer for lesson in batch],
            [lesson.cut for lesson in batch],
        )
        optimiser.zero_grad()
        losses.mean().backward()
        optimiser.step()
        for lesson, loss in zip(batch, losses.tolist(), strict=True):
            running[lesson.kind] = 0.95 * running.get(lesson.kind, loss) + 0.05 * loss
        if (step + 1) % logging_steps == 0:
            parts = "  ".join(f"{kind} {value:.3f}" for kind, value in sorted(running.items()))
            logger.info("speak %d/%d  %s", step + 1, steps, parts)


def set_projector(projector: Any, embeddings: torch.Tensor, slots: torch.Tensor) -> None:
    """Make the projector the table of what a position can be: tokens and slots, the second layer the identity.

    Args:
        projector: LLaVA's, with a linear activation.
        embeddings: The language model's embeddings of the lexicon's tokens, (K, hidden).
        slots: The trained slots, (S, hidden).
    """
    with torch.no_grad():
        projector.linear_1.weight.copy_(torch.cat([embeddings, slots]).T)
        projector.linear_2.weight.copy_(torch.eye(len(projector.linear_2.weight)))
        projector.linear_1.bias.zero_()
        projector.linear_2.bias.zero_()


def said_tokens(pictures: Iterable[Picture], targets: Any) -> Iterator[tuple[Picture, list[int]]]:
    """Yield each picture that fits the grid with the token ids that the tower should say for it.

    Args:
        pictures: Source of pictures.
        targets: `vision_targets.TargetBuilder`.
    """
    for picture in pictures:
        found = targets.targets(picture)
        if found is not None:
            yield picture, [targets.classes.ids[number] for number in found[0].tolist() if number >= 0]
