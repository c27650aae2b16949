"""A text disguised in every way that people have got past a detector with, for measuring how much is still found.

Each function takes a text and a seed and returns the same text in disguise; the same seed gives the same disguise.
`mllm-protector guard-bench --evasions` applies them to labelled responses.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection

from llava.data.evasions import frames, letters, noise
from llava.errors import InputError

Evasion = Callable[[str, int], str]

EVASIONS: dict[str, Evasion] = {
    "homoglyphs": letters.homoglyphs,
    "zero_width": letters.zero_width,
    "tags": letters.tags,
    "full_width": letters.full_width,
    "combining_marks": letters.combining_marks,
    "soft_hyphens": letters.soft_hyphens,
    "spaced_letters": letters.spaced_letters,
    "leetspeak": letters.leetspeak,
    "reversed": letters.reversed_letters,
    "reversed_words": letters.reversed_words,
    "base64": letters.in_base64,
    "hex": letters.in_hex,
    "rot13": letters.rot13,
    "code_fence": frames.code_fence,
    "json": frames.in_json,
    "table": frames.table,
    "list": frames.bullets,
    "html_comment": frames.html_comment,
    "harmless_before": frames.harmless_before,
    "harmless_behind": frames.harmless_behind,
    "harmless_around": frames.harmless_around,
    "refusals_around": frames.refusals_around,
    "disowned": frames.disowned,
    "chat_tokens": frames.chat_tokens,
    "detoxifier_prompt": frames.detoxifier_prompt,
    "emoji": noise.emoji,
    "newlines": noise.newlines,
    "typos": noise.typos,
    "mixed_case": noise.mixed_case,
    "story": noise.story,
    "ended_turns": noise.ended_turns,
}
"""Name → function; the order is that of tables."""
ENCODINGS = ("reversed", "base64", "hex", "rot13")
"""Those that nobody reads without decoding them."""


def disguise(text: str, name: str, seed: int = 0) -> str:
    """Return a text in a disguise of the registry.

    Args:
        text: What is disguised.
        name: A key of `EVASIONS`.
        seed: The same seed gives the same disguise of the same text; two texts get different ones.

    Example:
        >>> disguise("a cup", "rot13")
        'n phc'
    """
    return EVASIONS[name](text, random.Random(f"{seed}:{text}").getrandbits(32))


def choose_evasions(names: Collection[str] | None) -> tuple[str, ...]:
    """Return evasions by name in the order of the registry; `all` stands for every one, and None for none.

    Raises:
        InputError: When a name is unknown.

    Example:
        >>> choose_evasions(["hex", "tags"])
        ('tags', 'hex')
    """
    if names is None:
        return ()
    if unknown := [name for name in names if name not in EVASIONS and name != "all"]:
        raise InputError(f"--evasions {unknown[0]} is unknown; choose all, or of {', '.join(EVASIONS)}")
    return tuple(name for name in EVASIONS if name in names or "all" in names)
