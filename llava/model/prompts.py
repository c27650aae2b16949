"""Turning a user's text, with or without a picture, into the prompt that a model was trained on."""

from __future__ import annotations

import re
from typing import Any

from llava.errors import InputError

V1_SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)
"""System text of LLaVA's `llava_v1` conversation (haotian-liu/LLaVA, llava/conversation.py)."""

BARE_PROMPTS = {"paligemma": "{image}{text}", "blip-2": "{text}", "instructblip": "{text}"}
"""Models trained without turns: text as it is, and who puts the picture's token (blip: the processor itself)."""


def render_prompt(processor: Any, text: str, *, has_image: bool, model_type: str = "llava") -> str:
    """Render one user turn, ending where the assistant's answer begins.

    The processor's own chat template is used; without one, models trained on bare text get bare text and all others
    LLaVA's v1 prompt. `text` must have gone through `neutralise` before.

    Args:
        processor: The checkpoint's processor.
        text: What the user says.
        has_image: Whether a picture stands before the text.
        model_type: The checkpoint's `model_type`, which picks the form when there is no chat template.

    Raises:
        InputError: When the chat template cannot be rendered.
    """
    if getattr(processor, "chat_template", None) is None:
        image = getattr(processor, "image_token", "<image>") if has_image else ""
        if model_type in BARE_PROMPTS:
            return BARE_PROMPTS[model_type].format(image=image, text=text)
        return f"{V1_SYSTEM} USER: {image}{chr(10) if image else ''}{text} ASSISTANT:"
    from jinja2 import TemplateError

    content = [{"type": "image"}] if has_image else []
    messages = [{"role": "user", "content": [*content, {"type": "text", "text": text}]}]
    try:
        return str(processor.apply_chat_template(messages, add_generation_prompt=True))
    except (TemplateError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"the model's chat template cannot render a picture and a text ({reason}); mend it") from None


def reserved_tokens(processor: Any) -> list[str]:
    """Return the strings that the tokenizer or processor turns into something other than text.

    Special tokens end turns and start roles; the processor's own placeholders (`image_token` and the like) are
    expanded into picture positions.
    """
    tokenizer = getattr(processor, "tokenizer", processor)
    tokens = {str(token) for token in tokenizer.all_special_tokens}
    for token in tokenizer.added_tokens_decoder.values():
        if token.special or token.content.startswith("<|"):
            tokens.add(token.content)
    for name, value in vars(processor).items():
        if name.endswith(("_token", "_tag")) and value is not None:
            tokens.add(str(getattr(value, "content", value)))
    return sorted((token for token in tokens if token.strip()), key=len, reverse=True)


def neutralise(text: str, tokens: list[str]) -> str:
    """Return `text` with every reserved token broken up by a blank after its first character.

    A user's literal `<image>` would otherwise stand for a picture that is not there, and `<|im_end|>` would end the
    user's turn and let the text speak as the assistant. Text without such tokens comes back unchanged.

    Args:
        text: What the user wrote.
        tokens: Strings to break up, longest first (see `reserved_tokens`).

    Example:
        >>> neutralise("What does <image> mean?", ["<image>"])
        'What does < image> mean?'
    """
    if not tokens:
        return text
    pattern = re.compile("|".join(re.escape(token) for token in tokens))
    while pattern.search(text):
        # A token of one character has no inside to break, so it goes.
        text = pattern.sub(lambda match: f"{match[0][0]} {match[0][1:]}" if len(match[0]) > 1 else "", text)
    return text
