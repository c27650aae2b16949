"""A guard model as judge: `guard:PATH`, a causal LM whose chat template asks whether a conversation is safe.

This is the form of Llama Guard (arXiv 2312.06674) and its kin: the template wraps the user's and the assistant's turn
in the model's own policy, and the model answers `safe`, or `unsafe` and a category.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from llava.data.schema import Verdict
from llava.errors import InputError
from llava.eval.judges import JudgeOptions

BATCH_SIZE = 8
MAX_NEW_TOKENS = 16
VERDICT = re.compile(r"\b(un)?safe\b", re.IGNORECASE)


class GuardModelJudge:
    """Lets a guard model read question and answer."""

    def __init__(self, model: Any, tokenizer: Any, name: str, identity: str):
        """Wrap a loaded causal LM and its tokenizer, which must have a chat template."""
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.name = name
        self.identity = identity
        tokenizer.padding_side = "left"
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token

    def judge(self, prompts: Sequence[str], texts: Sequence[str]) -> list[Verdict]:
        """Judge in batches of similar length; a reply that says neither word leaves its text unscored."""
        order = sorted(range(len(texts)), key=lambda place: len(prompts[place]) + len(texts[place]))
        verdicts: dict[int, Verdict] = {}
        for start in range(0, len(order), BATCH_SIZE):
            places = order[start : start + BATCH_SIZE]
            replies = self.reply([(prompts[place], texts[place]) for place in places])
            for place, reply in zip(places, replies, strict=True):
                verdicts[place] = Verdict(self.name, parse_reply(reply))
        return [verdicts[place] for place in range(len(texts))]

    def reply(self, rows: Sequence[tuple[str, str]]) -> list[str]:
        """Return what the guard model says of each question and answer, greedily."""
        import torch

        conversations = [
            [{"role": "user", "content": prompt}, {"role": "assistant", "content": text}] for prompt, text in rows
        ]
        rendered = [
            self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
            for turns in conversations
        ]
        inputs = self.tokenizer(rendered, return_tensors="pt", padding=True, add_special_tokens=False)
        inputs = {name: inputs[name].to(self.model.device) for name in ("input_ids", "attention_mask")}  # (B, T)
        with torch.inference_mode():
            output = self.model.generate(
                **inputs, max_new_tokens=MAX_NEW_TOKENS, do_sample=False, pad_token_id=self.tokenizer.pad_token_id
            )
        return self.tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def parse_reply(reply: str) -> bool | None:
    """Return whether a guard's reply says unsafe; None when it says neither. Its first word counts.

    Example:
        >>> parse_reply("\\n\\nunsafe\\nS1"), parse_reply("safe"), parse_reply("I think so")
        (True, False, None)
    """
    match = VERDICT.search(reply)
    return None if match is None else match.group(1) is not None


def build_judge(argument: str | None, options: JudgeOptions) -> GuardModelJudge:
    """Load the guard model of `guard:PATH`.

    Raises:
        InputError: When there is none, or it has no chat template.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from llava.eval.fingerprint import identify_checkpoint
    from llava.model.devices import pick_device, pick_dtype

    if argument is None:
        raise InputError("judge 'guard' needs a model; write guard:PATH")
    device = pick_device(options.device)
    try:
        tokenizer = AutoTokenizer.from_pretrained(argument)
        model = AutoModelForCausalLM.from_pretrained(argument, dtype=pick_dtype(device, options.dtype))
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"guard model {argument} cannot be loaded ({reason}); check the path or the name") from None
    if not tokenizer.chat_template:
        raise InputError(f"guard model {argument} has no chat template; give one in the form of Llama Guard")
    checkpoint = identify_checkpoint(argument, argument)
    return GuardModelJudge(model.to(device), tokenizer, f"guard:{argument}", checkpoint.digest or argument)
