"""Refusals that stand in as rewriting targets where a data set has no harmless response."""

from __future__ import annotations

import hashlib

REFUSALS = (
    "I'm sorry, but I can't help with that. It could hurt someone, and I'd rather help you find a safe way forward.",
    "I can't assist with this request because it could cause harm. If there is a safe or legal side to it, ask me "
    "about that and I'll gladly help.",
    "That isn't something I'm able to help with. I'm happy to answer questions on staying safe or on where to find "
    "proper support.",
    "I won't go into this, since acting on it could harm people. Is there another way in which I can help you?",
    "Sorry, I have to decline. What you describe may be dangerous or against the law, and I don't want to contribute "
    "to it.",
    "I understand that you would like an answer, but I can't give one here, since it could lead to harm. Let's look "
    "at a constructive alternative instead.",
    "I'm not able to provide that. If you are dealing with a difficult situation, someone you trust or a local "
    "professional can help you safely.",
    "I'd rather not answer this: it would be unfair or hurtful to others. I can help with a respectful version of "
    "the question.",
)
"""Several forms, so that a detoxifier does not learn one sentence by heart."""


def choose_refusal(prompt: str, response: str) -> str:
    """Return one of `REFUSALS`; the same row always gets the same one.

    Example:
        >>> choose_refusal("q", "r") == choose_refusal("q", "r")
        True
    """
    digest = hashlib.sha256(f"{prompt}\n{response}".encode()).digest()
    return REFUSALS[int.from_bytes(digest[:4], "big") % len(REFUSALS)]
