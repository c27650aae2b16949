"""How early a harmful response is flagged while it grows, and how often a harmless one is on its way.

Attention looks back only, so one pass over a response gives the score of every prefix of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from llava.protector.scoring.stretches import running_logits
from llava.protector.text import Window, cut_windows, list_pairs, tokenise_pair

if TYPE_CHECKING:
    from llava.data.training.pairs import DetectorRow
    from llava.protector.detector import HarmDetector

HIDDEN = -1
"""Where a window begins that is of no part of the response as it stands, but of a text that is hidden in it."""


class Trace(NamedTuple):
    """What a detector says of a response while it grows."""

    score: float
    """Harm score of the whole; NaN when there is nothing to score, or no finite number."""
    highest: float
    """Highest score of any prefix, the whole among them."""
    tokens: int
    """Tokens of the response."""
    flagged_at: int | None
    """Tokens that are out when the score first reaches the threshold; None when it never does."""


def trace_responses(
    detector: HarmDetector, responses: Sequence[str], prompts: Sequence[str], batch_size: int = 16
) -> list[Trace]:
    """Score every prefix of responses.

    Args:
        detector: A detector with `mean_response` pooling.
        responses: The texts.
        prompts: The questions, one each.
        batch_size: Windows a forward pass.

    Returns:
        One trace a response. Its `score` is `HarmDetector.score`'s but for the last bits. Of a text that is hidden in a
        response only the whole counts, at the response's end.

    Raises:
        ValueError: When the detector pools in another way, or prompts and responses differ in number.
    """
    import torch

    from llava.protector.classifier import pad_windows

    if detector.config.pooling != "mean_response":
        raise ValueError(f"prefixes are scored with mean_response pooling, not {detector.config.pooling}")
    sign = 1.0 if detector.config.positive_label == "harmful" else -1.0
    windows: list[tuple[int, int, Window]] = []
    lengths = [0] * len(responses)
    for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        for number, pair in enumerate(list_pairs(detector.config, prompt, response)):
            text = tokenise_pair(detector.tokenizer, detector.config, *pair)
            if text and number == 0:
                lengths[row] = len(text.spans)
            for start, window in cut_windows(text, detector.config.max_length) if text else []:
                windows.append((row, start if number == 0 else HIDDEN, window))
    windows.sort(key=lambda item: len(item[2].ids))
    scores: list[list[float]] = [[] for _ in responses]
    highest: list[list[float]] = [[] for _ in responses]
    flagged: list[list[int]] = [[] for _ in responses]
    network = detector.classifier
    for first in range(0, len(windows), batch_size):
        part = windows[first : first + batch_size]
        batch = pad_windows([window for _, _, window in part], detector.tokenizer.pad_token_id or 0)
        place = {name: tensor.to(network.device) for name, tensor in batch.items()}
        with torch.inference_mode():
            logits = sign * network.score_tokens(place["input_ids"], place["attention_mask"])
            running = running_logits(logits, place["response_mask"], network.stretches, network.margin).double()
            harm = torch.sigmoid(running / detector.config.temperature).cpu()
        for (row, start, window), line in zip(part, harm, strict=True):
            prefixes = line[window.head : len(window.ids)]
            if start == HIDDEN:
                prefixes = prefixes[-1:]
            scores[row].append(prefixes[-1].item())
            highest[row].append(prefixes.max().item())
            reached = (prefixes >= detector.threshold).nonzero()
            if len(reached):
                flagged[row].append(lengths[row] if start == HIDDEN else start + int(reached[0, 0]) + 1)
    return [
        Trace(_worst(scores[row]), _worst(highest[row]), lengths[row], min(flagged[row], default=None))
        for row in range(len(responses))
    ]


def _worst(scores: Sequence[float]) -> float:
    """Return the highest score, or NaN when there is none or any is not finite."""
    return max(scores) if scores and all(map(math.isfinite, scores)) else math.nan


def summarise_traces(rows: Sequence[DetectorRow], traces: Sequence[Trace], threshold: float) -> dict[str, Any]:
    """Return how early harmful responses are flagged, and what judging every prefix costs.

    Args:
        rows: The rows.
        traces: What was traced of each.
        threshold: The detector's.

    Returns:
        `harmful`, `flagged` (of them, at any prefix), `tokens_median` and `tokens_90` (out when flagged, over those
        that are), `length_median` (of the same responses), `harmless`, `fpr` (of the whole responses) and
        `fpr_any_prefix`.

    Example:
        >>> from llava.data.training.pairs import DetectorRow
        >>> rows = [DetectorRow("", "x", label, "s") for label in (True, False)]
        >>> figures = summarise_traces(rows, [Trace(0.9, 0.9, 40, 12), Trace(0.1, 0.6, 9, 3)], 0.5)
        >>> figures["tokens_median"], figures["fpr"], figures["fpr_any_prefix"]
        (12.0, 0.0, 1.0)
    """
    harmful = [trace for row, trace in zip(rows, traces, strict=True) if row.harmful]
    harmless = [trace for row, trace in zip(rows, traces, strict=True) if not row.harmful]
    found = [trace for trace in harmful if trace.flagged_at is not None]
    at = [float(trace.flagged_at) for trace in found if trace.flagged_at is not None]
    return {
        "harmful": len(harmful),
        "flagged": len(found),
        "tokens_median": float(np.median(at)) if at else None,
        "tokens_90": float(np.quantile(at, 0.9)) if at else None,
        "length_median": float(np.median([trace.tokens for trace in found])) if found else None,
        "harmless": len(harmless),
        "fpr": float(np.mean([not trace.score < threshold for trace in harmless])) if harmless else None,
        "fpr_any_prefix": float(np.mean([trace.flagged_at is not None for trace in harmless])) if harmless else None,
    }
