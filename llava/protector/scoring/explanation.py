"""Where is the harm? A score for every token of a response, from the pass that scores the whole."""

from __future__ import annotations

import math
from difflib import SequenceMatcher
from typing import TYPE_CHECKING

from llava.data.token_scores import TokenScore
from llava.protector.text import PairTokens, cut_windows

if TYPE_CHECKING:
    import torch

    from llava.protector.classifier import HarmClassifier
    from llava.protector.config import ProtectorConfig

SPAN = 16
"""Tokens around a token whose mean logit is its score: a single token says little, and its neighbours differ a lot."""
MOST_ALIGNED = 4000
"""Characters up to which a text is compared with its plain form, letter by letter; the time is quadratic."""


def explain_tokens(
    network: HarmClassifier,
    config: ProtectorConfig,
    text: PairTokens,
    *,
    pad_token_id: int = 0,
    batch_size: int = 16,
    span: int = SPAN,
) -> list[TokenScore]:
    """Score the surroundings of every token of a response; see `HarmDetector.explain`.

    Args:
        network: The network to run.
        config: How it is used.
        text: The pair in tokens.
        pad_token_id: What short windows are padded with.
        batch_size: Windows a forward pass.
        span: Tokens around each, itself included.
    """
    import torch

    from llava.protector.classifier import pad_windows

    best = [-math.inf] * len(text.spans)
    windows = cut_windows(text, config.max_length)
    sign = 1.0 if config.positive_label == "harmful" else -1.0
    for first in range(0, len(windows), batch_size):
        part = windows[first : first + batch_size]
        batch = pad_windows([window for _, window in part], pad_token_id)
        place = {name: tensor.to(network.device) for name, tensor in batch.items()}
        with torch.inference_mode():
            logits = sign * network.score_tokens(place["input_ids"], place["attention_mask"]).double()
            smooth = smooth_logits(logits, place["response_mask"], span).cpu()
        for (start, window), row in zip(part, smooth, strict=True):
            for at, logit in enumerate(row[window.head : len(window.ids)].tolist(), start):
                best[at] = worse(best[at], logit)
    harm = torch.sigmoid(torch.tensor(best, dtype=torch.float64) / config.temperature).tolist()
    return [TokenScore(*place, score) for place, score in zip(text.spans, harm, strict=True)]


def worse(one: float, other: float) -> float:
    """Return the higher of two logits; NaN where one is none: what two windows say of a token that both hold.

    Example:
        >>> worse(1.0, 2.0), worse(math.nan, 2.0)
        (2.0, nan)
    """
    return math.nan if math.isnan(one) or math.isnan(other) else max(one, other)


def smooth_logits(token_logits: torch.Tensor, mask: torch.Tensor, span: int) -> torch.Tensor:
    """Return the mean logit over the `span` tokens around each token, fewer at the ends of the response.

    Args:
        token_logits: A logit a token, (B, T).
        mask: 1 for the response's tokens, (B, T).
        span: Tokens of the mean: half of them before the token, the others from it on.

    Returns:
        Means, (B, T); outside the response 0.

    Example:
        >>> import torch
        >>> smooth_logits(torch.tensor([[9.0, 0.0, 3.0, 6.0]]), torch.tensor([[0, 1, 1, 1]]), 3).tolist()
        [[0.0, 1.5, 3.0, 4.5]]
    """
    import torch

    ours = mask.bool()
    before, behind = span // 2, span - span // 2 - 1
    values = torch.nn.functional.pad(torch.where(ours, token_logits, 0.0), (before, behind)).unfold(1, span, 1)
    counts = torch.nn.functional.pad(ours.to(token_logits.dtype), (before, behind)).unfold(1, span, 1)
    return torch.where(ours, values.sum(2) / counts.sum(2).clamp(min=1), 0.0)


def align_positions(plain: str, text: str) -> list[int]:
    """Return for every position of a text without its disguises where that is in the text as it was written.

    Args:
        plain: The text without disguises.
        text: The text.

    Returns:
        Positions in `text`, one for each of `plain` and its end; they never fall.

    Example:
        >>> align_positions("water", "w a t e r")
        [0, 2, 4, 6, 8, 9]
    """
    places: list[int] = []
    for _, low, high, start, end in SequenceMatcher(None, plain, text, autojunk=False).get_opcodes():
        size = max(1, high - low)
        places += [start + (position - low) * (end - start) // size for position in range(low, high)]
    return [*places, len(text)]
