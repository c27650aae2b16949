"""A conversation of several turns → the inputs of a multimodal model in this process."""

from __future__ import annotations

from typing import Any

import torch

from llava.model.answering.generation import MultimodalModel
from llava.model.answering.prompts import BARE_PROMPTS, chat_template, neutralise, reserved_tokens
from llava.model.llava_checkpoints.format import IMAGE_TOKEN
from llava.model.tokenizers import hold_tokenizer
from llava.serve.chat.messages import ImagePart, Turn
from llava.serve.errors import ApiError

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
"""Roles that chat templates know."""


def encode_conversation(model: MultimodalModel, turns: tuple[Turn, ...]) -> dict[str, torch.Tensor]:
    """Return the model's inputs for a conversation whose images are open.

    Control tokens that are spelled out in a turn are text like any other: nobody can end a turn and speak as another.

    Args:
        model: The model.
        turns: The conversation.

    Returns:
        Inputs of one row: `input_ids` (1, T), `attention_mask` and, with images, what the processor makes of them.

    Raises:
        ApiError: When the model cannot take such a conversation.
    """
    text = render_conversation(model, turns)
    images = [part.image for turn in turns for part in turn.parts if isinstance(part, ImagePart)]
    bos = model.tokenizer.bos_token
    # A template that writes the start token itself must not get a second one.
    options = {"return_tensors": "pt", "add_special_tokens": not (bos and text.startswith(bos))}
    try:
        with hold_tokenizer(model.tokenizer):
            # Some processors insist on an image where the model does not.
            batch = (
                model.processor(text=[text], images=[images], **options)
                if images
                else model.tokenizer([text], **options)
            )
    except (ValueError, TypeError, IndexError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ApiError(400, f"model {model.name} cannot take these images ({reason}); send fewer") from None
    batch.pop("labels", None)
    return {
        key: value.to(model.device, model.model.dtype if value.is_floating_point() else None)
        for key, value in batch.items()
    }


def find_room(model: MultimodalModel, length: int, wanted: int) -> int:
    """Return how many tokens an answer may have.

    Args:
        model: The model.
        length: Tokens of the prompt.
        wanted: Longest answer that is asked for, in tokens.

    Raises:
        ApiError: When the prompt alone is too long.
    """
    most = model.context_length
    if most is None or model.model.config.is_encoder_decoder:
        return wanted
    if length >= most:
        raise ApiError(
            400,
            f"a prompt of {length} tokens does not fit into the {most} positions of the model; shorten it",
            code="context_length_exceeded",
        )
    return min(wanted, most - length)


def render_conversation(model: MultimodalModel, turns: tuple[Turn, ...]) -> str:
    """Return the prompt of a conversation, ending where the next answer begins.

    Raises:
        ApiError: When the model's chat template does not take it.
    """
    from jinja2 import TemplateError

    reserved = reserved_tokens(model.processor)
    messages = [_to_message(turn, reserved, number) for number, turn in enumerate(turns)]
    template = getattr(model.processor, "chat_template", None)
    if template is None:
        image = getattr(model.processor, "image_token", IMAGE_TOKEN)
        kind = model.model.config.model_type
        if kind in BARE_PROMPTS:
            return _render_bare(BARE_PROMPTS[kind], image, turns, reserved)
        template = chat_template("v1", image)
    try:
        return str(model.processor.apply_chat_template(messages, chat_template=template, add_generation_prompt=True))
    except (TemplateError, TypeError, KeyError, IndexError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ApiError(400, f"the model's chat template does not take these messages ({reason})") from None


def _to_message(turn: Turn, reserved: list[str], number: int) -> dict[str, Any]:
    """Return a turn as chat templates take it."""
    if turn.role not in ROLES:
        raise ApiError(400, f"message {number + 1} is of role {turn.role}; a model in this process calls no tools")
    content = [
        {"type": "image"} if isinstance(part, ImagePart) else {"type": "text", "text": neutralise(part, reserved)}
        for part in turn.parts
    ]
    # Templates differ in whether they take parts from anybody but the user.
    only_text = turn.role != "user"
    return {"role": ROLES[turn.role], "content": neutralise(turn.text, reserved) if only_text else content}


def _render_bare(form: str, image: str, turns: tuple[Turn, ...], reserved: list[str]) -> str:
    """Return the prompt of a model that was trained without turns."""
    images = sum(isinstance(part, ImagePart) for turn in turns for part in turn.parts)
    if len(turns) != 1 or images > 1:
        raise ApiError(400, "this model was trained on one question with one image; send a single user message")
    return form.format(image=image if images else "", text=neutralise(turns[0].text, reserved))
