"""From conversations to batches: the model's own chat template, the loss on answers alone, pictures opened when needed.

A picture takes one `<image>` token in an encoded row and as many as the tower gives features in a batch.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from PIL import Image

from llava.data.images import open_image
from llava.data.training.conversations import Conversation
from llava.errors import InputError
from llava.model.answering.prompts import neutralise, reserved_tokens
from llava.train.token_loss import IGNORED

logger = logging.getLogger(__name__)

PLACE = "\ue000answer\ue001"
"""Stands for an answer while a template is rendered, which is done once for a row however many answers it has."""

Span = tuple[int, int]
Messages = list[dict[str, Any]]


@dataclass(frozen=True)
class EncodedConversation:
    """A conversation in tokens."""

    input_ids: np.ndarray
    """One `<image>` token for each picture; int32, for a data set has hundreds of thousands of rows."""
    answers: list[Span]
    """Where the answers with their end marks lie in `input_ids`; the loss sees these."""
    length: int
    """Positions in the model, with those of the pictures."""
    images: tuple[str, ...]
    """Paths of the pictures."""
    row: Conversation
    """Where it comes from."""
    cut: bool = False
    """Whether it was longer than allowed."""

    @property
    def targets(self) -> int:
        """Number of tokens that the loss sees."""
        return sum(end - start for start, end in self.answers)


class ConversationEncoder:
    """Turns conversations into tokens, as the model's processor renders them.

    Args:
        processor: The model's processor (a `LlavaProcessor` with a chat template).
        max_length: Most positions of a row, those of its pictures included.

    Raises:
        InputError: When the chat template does not keep turns apart.
    """

    def __init__(self, processor: Any, max_length: int):
        self.tokenizer = processor.tokenizer
        self.form = read_template(self.tokenizer, processor.chat_template)
        self.image_token_id: int = processor.image_token_id
        self.image_positions = count_image_positions(processor)
        self.max_length = max_length
        self.reserved = reserved_tokens(processor)

    def encode(self, conversation: Conversation) -> EncodedConversation | None:
        """Return a row in tokens, cut to `max_length`; None when no token of an answer finds room.

        Raises:
            InputError: When template or tokenizer do not treat the row as they treat others.
        """
        try:
            ids, answers = self._tokenise(*self._write(conversation))
        except InputError as error:
            raise InputError(f"{conversation.where}: {error}") from None
        if ids.count(self.image_token_id) != len(conversation.images):
            raise InputError(f"{conversation.where}: the model's chat template leaves out pictures; mend the template")
        if not self.form.mark:  # without an end mark the model would forget how to stop
            ids.append(self.tokenizer.eos_token_id)
            answers[-1] = (answers[-1][0], len(ids))
        return self._fit(conversation, ids, answers)

    def _write(self, conversation: Conversation) -> tuple[str, list[Span]]:
        """Return the text up to the end of the last answer, and where the answers with their end marks lie in it.

        The texts cannot hold tokens of the template, as at inference.
        """
        said = [neutralise(turn.text, self.reserved) for turn in conversation.turns]
        messages = [
            {
                "role": turn.role,
                "content": [{"type": "image"}] * turn.images
                + [{"type": "text", "text": PLACE if turn.role == "assistant" else text}],
            }
            for turn, text in zip(conversation.turns, said, strict=True)
        ]
        first, *rest = render(self.tokenizer, self.form.template, messages).split(PLACE)
        texts = [text for turn, text in zip(conversation.turns, said, strict=True) if turn.role == "assistant"]
        lead, mark = self.form.lead, self.form.mark
        if len(rest) != len(texts) or not all(piece.startswith(mark) for piece in rest):
            raise InputError("the model's chat template renders this row unlike others; mend the row or the template")
        whole, answers = first, []
        for text, following in zip(texts, rest, strict=True):
            start = len(whole) - len(lead)
            whole += text + mark
            answers.append((start, len(whole)))
            whole += following.removeprefix(mark)
        return whole[: answers[-1][1]], answers

    def _tokenise(self, text: str, spans: list[Span]) -> tuple[list[int], list[Span]]:
        """Return the tokens of a text, and the spans in tokens."""
        bos = self.tokenizer.bos_token
        special = not (bos and text.startswith(bos))  # the rule of `MultimodalModel.encode`
        encoded = self.tokenizer(text, add_special_tokens=special, return_offsets_mapping=True, verbose=False)
        ids: list[int] = encoded["input_ids"]
        starts, ends = np.array(encoded["offset_mapping"]).T
        # Some tokenizers leave white space out of a token's place: its end is then still where it ends.
        bounds = np.searchsorted(ends, np.array(spans), side="right")  # (answers, 2)
        first = self.tokenizer(text[: spans[0][0]], add_special_tokens=special, verbose=False)["input_ids"]
        if ids[: bounds[0, 0]] != first or (starts[bounds[:, 0]] < np.array(spans)[:, 0]).any():
            raise InputError("this tokenizer joins the end of a prompt with the answer; mend the model's chat template")
        return ids, [(int(start), int(end)) for start, end in bounds]

    def _fit(self, conversation: Conversation, ids: list[int], answers: list[Span]) -> EncodedConversation | None:
        """Cut a row to `max_length` positions and to the end of its last answer."""
        widths = [self.image_positions if token == self.image_token_id else 1 for token in ids]
        ends = list(accumulate(widths))
        room = sum(end <= self.max_length for end in ends)
        kept = [(start, min(end, room)) for start, end in answers if start < room]
        if not kept:
            return None
        ids = ids[: kept[-1][1]]
        images = conversation.images[: ids.count(self.image_token_id)]
        compact = np.array(ids, dtype=np.int32)
        return EncodedConversation(compact, kept, ends[len(ids) - 1], images, conversation, cut=room < len(widths))


def count_image_positions(processor: Any) -> int:
    """Return how many positions the processor makes room for at a picture."""
    inputs = processor(text=processor.image_token, images=Image.new("RGB", (64, 64)), return_tensors="pt")
    return int((inputs["input_ids"] == processor.image_token_id).sum())


def render(tokenizer: Any, template: str, messages: Messages, add_generation_prompt: bool = False) -> str:
    """Return the text of a conversation."""
    text: str = tokenizer.apply_chat_template(
        messages, chat_template=template, tokenize=False, add_generation_prompt=add_generation_prompt
    )
    return text


@dataclass(frozen=True)
class TemplateForm:
    """How a chat template writes an answer."""

    template: str
    lead: str
    """What stands between the prompt at inference and the answer, such as a blank."""
    mark: str
    """What ends an answer; empty when the template ends it by nothing but white space."""


def read_template(tokenizer: Any, template: str) -> TemplateForm:
    """Return how a template writes answers, found out by rendering.

    Raises:
        InputError: When a prompt does not begin the text that has its answer, or a turn changes what is before it.
    """
    question: Messages = [{"role": "user", "content": [{"type": "text", "text": "?"}]}]
    answered: Messages = [*question, {"role": "assistant", "content": [{"type": "text", "text": PLACE}]}]
    prompt = render(tokenizer, template, question, add_generation_prompt=True)
    one, two = render(tokenizer, template, answered), render(tokenizer, template, answered * 2)
    before, place, after = one.partition(PLACE)
    # White space behind the end mark belongs to the next turn.
    mark = after.rstrip()
    if not (place and before.startswith(prompt) and two.startswith(before + place + mark)):
        raise InputError("the model's chat template renders a turn differently once the next is there; mend it")
    return TemplateForm(template, before.removeprefix(prompt), mark)


def encode_conversations(encoder: ConversationEncoder, rows: Sequence[Conversation]) -> list[EncodedConversation]:
    """Return the rows in tokens; those cut and those without room for an answer are counted in the log.

    Raises:
        InputError: When there are rows but none has room.
    """
    encoded = [example for example in map(encoder.encode, rows) if example is not None]
    if rows and not encoded:
        raise InputError(f"--max-length {encoder.max_length} leaves no room for an answer in any row; raise it")
    cut, lost = sum(example.cut for example in encoded), len(rows) - len(encoded)
    if cut or lost:
        message = "%d of %d rows are longer than --max-length %d and were cut; %d more have no room for an answer"
        logger.warning(message + " and are left out", cut, len(rows), encoder.max_length, lost)
    return encoded


class LlavaCollator:
    """Pads rows into one batch, on the right, and opens their pictures.

    Input: `EncodedConversation` examples.

    Output, for B rows of at most T positions with P pictures: `input_ids`, `attention_mask` and `labels`, each (B, T),
    and with pictures `pixel_values` (P, 3, S, S), as the processor makes them at inference. Labels are -100 everywhere
    but at the answers.

    Args:
        processor: The model's processor.
        image_positions: Positions of a picture.
    """

    def __init__(self, processor: Any, image_positions: int):
        self.image_processor = processor.image_processor
        self.image_token_id: int = processor.image_token_id
        self.pad_token_id: int = processor.tokenizer.pad_token_id
        self.image_positions = image_positions

    def __call__(self, examples: Sequence[EncodedConversation]) -> dict[str, torch.Tensor]:
        """Make the batch."""
        width = max(example.length for example in examples)
        input_ids = torch.full((len(examples), width), self.pad_token_id)  # (B, T)
        attention_mask = torch.zeros_like(input_ids)
        labels = torch.full_like(input_ids, IGNORED)
        for i, example in enumerate(examples):
            ids, targets = self._expand(example)
            input_ids[i, : example.length] = ids
            attention_mask[i, : example.length] = 1
            labels[i, : example.length] = targets
        batch = {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}
        pictures = [open_image(path) for example in examples for path in example.images]
        if pictures:
            batch["pixel_values"] = self.image_processor(pictures, return_tensors="pt")["pixel_values"]
        return batch

    def _expand(self, example: EncodedConversation) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a row's tokens and labels with every picture at its full width."""
        ids = torch.from_numpy(example.input_ids).long()
        targets = torch.full_like(ids, IGNORED)
        for start, end in example.answers:
            targets[start:end] = ids[start:end]
        widths = torch.where(ids == self.image_token_id, self.image_positions, 1)
        return ids.repeat_interleave(widths), targets.repeat_interleave(widths)


def modality_groups(examples: Sequence[EncodedConversation]) -> Iterator[str]:
    """Yield `picture` or `text` for each row: batches hold rows of one kind."""
    return ("picture" if example.images else "text" for example in examples)
