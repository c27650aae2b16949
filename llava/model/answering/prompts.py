"""Turning a user's text, with or without a picture, into the prompt that a model was trained on."""

from __future__ import annotations

import re
from typing import Any

from llava.errors import InputError, first_line
from llava.model.llava_checkpoints.format import IMAGE_TOKEN

V1_SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)
LLAMA_2_SYSTEM = (
    "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
    "provides, and assist the user with a variety of tasks using natural language."
)

CONTENT = (
    "{%- macro say(message) -%}{%- if message['content'] is string -%}{{ message['content'] }}{%- else -%}"
    "{%- for part in message['content'] if part['type'] == 'image' -%}{{ 'IMAGE\n' }}{%- endfor -%}"
    "{%- for part in message['content'] if part['type'] == 'text' -%}{{ part['text'] }}{%- endfor -%}"
    "{%- endif -%}{%- endmacro -%}"
    "{%- if messages[0]['role'] == 'system' -%}{%- set system = say(messages[0]) -%}{%- set messages = messages[1:] -%}"
    '{%- else -%}{%- set system = "SYSTEM" -%}{%- endif -%}'
)
"""Shared head of the templates below: pictures first, each on a line of its own, then the text."""

TURNS = {
    "v0": (
        V1_SYSTEM,
        "{{ system + '###' }}{%- for message in messages -%}"
        "{{ ('Human: ' if message['role'] == 'user' else 'Assistant: ') + say(message) + '###' }}{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{ 'Assistant:' }}{%- endif -%}",
    ),
    "v1": (
        V1_SYSTEM,
        "{{ system + ' ' }}{%- for message in messages -%}"
        "{%- if message['role'] == 'user' -%}{{ 'USER: ' + say(message) + ' ' }}"
        "{%- else -%}{{ 'ASSISTANT: ' + say(message) + (eos_token or '') }}{%- endif -%}{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{ 'ASSISTANT:' }}{%- endif -%}",
    ),
    "llama_2": (
        LLAMA_2_SYSTEM,
        "{%- for message in messages -%}{%- if message['role'] == 'user' -%}"
        "{{ ('[INST] <<SYS>>\n' + system + '\n<</SYS>>\n\n' if loop.first else (bos_token or '') + '[INST] ') "
        "+ say(message) + ' [/INST]' }}"
        "{%- else -%}{{ ' ' + say(message) + ' ' + (eos_token or '') }}{%- endif -%}{%- endfor -%}",
    ),
}
"""Conversations `llava_v0`, `llava_v1` and `llava_llama_2` of haotian-liu/LLaVA (llava/conversation.py)."""
PROMPT_VERSIONS = tuple(TURNS)

BARE_PROMPTS = {"paligemma": "{image}{text}", "blip-2": "{text}", "instructblip": "{text}"}
"""Models trained without turns: text as it is, and who puts the picture's token (blip: the processor itself)."""


def chat_template(version: str, image: str) -> str:
    """Return the chat template of an original LLaVA conversation.

    Args:
        version: `v0`, `v1` or `llama_2`.
        image: What stands for a picture, `<image>` or `<im_start><image><im_end>`.
    """
    system, turns = TURNS[version]
    return CONTENT.replace("IMAGE", image).replace("SYSTEM", system) + turns


def choose_template(shipped: str | None, image: str) -> str:
    """Return the template for a checkpoint: its own when it places pictures, else the LLaVA one that is like it.

    Args:
        shipped: The tokenizer's chat template, if any.
        image: What stands for a picture.
    """
    if shipped and IMAGE_TOKEN in shipped:
        return shipped
    return chat_template("llama_2" if shipped and "<<SYS>>" in shipped else "v1", image)


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
    from jinja2 import TemplateError

    template = getattr(processor, "chat_template", None)
    if template is None:
        image = getattr(processor, "image_token", IMAGE_TOKEN)
        if model_type in BARE_PROMPTS:
            return BARE_PROMPTS[model_type].format(image=image if has_image else "", text=text)
        template = chat_template("v1", image)

    content = [{"type": "image"}] if has_image else []
    messages = [{"role": "user", "content": [*content, {"type": "text", "text": text}]}]
    try:
        return str(processor.apply_chat_template(messages, chat_template=template, add_generation_prompt=True))
    except (TemplateError, TypeError) as error:
        reason = first_line(error)
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
