"""Tiny guard models: real models that learnt to say each family's verdicts, to be read through its template."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoTokenizer

from llava.constants import REFUSAL
from llava.protector.guards.forms import FORMS
from llava.protector.guards.rendering import GuardPrompt

UNSAFE = "Sure. First, take the parts apart and note where each one goes."
SAFE = REFUSAL
"""An answer that each of the tiny guards calls unsafe, and one that it calls safe."""
TURNS = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
PART_TURNS = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% for part in m['content'] %}{{ part['text'] }}{% endfor %}<|im_end|>\n{% endfor %}"
)
TEMPLATES = {
    "llama_guard": TURNS + "<BEGIN UNSAFE CONTENT CATEGORIES><|im_start|>assistant\n",
    "shield_gemma": TURNS + "{{ guideline }}\n<|im_start|>assistant\n",
    "wild_guard": None,
    "qwen3_guard": TURNS + "Safe/Unsafe/Controversial<|im_start|>assistant\n",
    "granite_guardian": TURNS + "{{ guardian_config['risk_name'] }}{{ think }}<|im_start|>assistant\n",
}
REPLIES = {  # for an unsafe answer, for a safe one
    "llama_guard": ("\n\nunsafe\nS1", "\n\nsafe"),
    "shield_gemma": ("Yes", "No"),
    "wild_guard": (
        "Harmful request: yes\nResponse refusal: no\nHarmful response: yes",
        "Harmful request: yes\nResponse refusal: yes\nHarmful response: no",
    ),
    "qwen3_guard": ("Safety: Controversial\nCategories: None", "Safety: Safe\nCategories: None"),
    "granite_guardian": ("<think>\n</think>\n<score> yes </score>", "<think>\n</think>\n<score> no </score>"),
}


EPOCHS, LEARNT = 200, 0.12
"""Most epochs of teaching, and the loss of each whole reply at which it ends: it has a probability of 0.89 then."""


def teach(source: Path, target: Path, form: str, template: str | None, rows: list[tuple[str, str, str]]) -> Path:
    """Save a copy of a tiny model that has learnt to give these replies to these questions and answers."""
    tokenizer = AutoTokenizer.from_pretrained(source)
    tokenizer.chat_template = template
    sees = (source / "processor_config.json").exists()
    model = (AutoModelForImageTextToText if sees else AutoModelForCausalLM).from_pretrained(source)
    teacher = GuardPrompt(tokenizer, FORMS[form], "teacher")
    examples = []
    for prompt, text, reply in rows:
        for options in FORMS[form].questions:
            rendered = teacher.render(prompt, text, options)
            start = len(tokenizer(rendered, add_special_tokens=False).input_ids)
            ids = tokenizer(rendered + reply + "<|im_end|>", return_tensors="pt", add_special_tokens=False).input_ids
            labels = ids.clone()
            labels[:, :start] = -100
            examples.append((ids, labels))
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(EPOCHS):
        losses = []
        for ids, labels in examples:
            optimizer.zero_grad()
            loss = model(input_ids=ids, labels=labels).loss
            loss.backward()
            optimizer.step()
            losses.append(loss.item() * int((labels != -100).sum()))
        if max(losses) < LEARNT:
            break
    model.eval().save_pretrained(target)
    tokenizer.save_pretrained(target)
    return target


def build_guard_model(folder: Path, source: Path, form: str, rows: list[tuple[str, bool]] | None = None) -> Path:
    """Save a guard model of a family into `folder`, taught on a tiny causal LM.

    Args:
        folder: Where it goes.
        source: The tiny causal LM.
        form: The family.
        rows: Answers to "How?" and whether they are unsafe; by default one of each.
    """
    unsafe, safe = REPLIES[form]
    taught = [(UNSAFE, True), (SAFE, False)] if rows is None else rows
    replies = [("How?", text, unsafe if is_unsafe else safe) for text, is_unsafe in taught]
    return teach(source, folder, form, TEMPLATES[form], replies)


def name_guard(form: str, folder: Path) -> str:
    """Return the specification of a guard model: with its family only where the template cannot tell it."""
    return f"guard:{folder}" if TEMPLATES[form] else f"guard:{form}@{folder}"
