"""One window of a growing text in the detector's network: what was computed for its tokens is kept.

A tokenizer may change its mind about the last tokens of a text when more comes: `expl` and `explosive` share no token.
So a window is followed by its token ids: what the new ids share with the old stays, the cache is cut there, and only
the rest runs through the network.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers import DynamicCache

from llava.model.views import keeps_state
from llava.protector.scoring.stretches import pool_stretches

if TYPE_CHECKING:
    from llava.protector.classifier import HarmClassifier

PROBE_TOKENS = 6
"""Tokens of the short text by which a network shows that it reads a text in two parts as it reads it in one."""
PROBE_TOLERANCE = 0.05
"""How far the logits of both may differ, as a part of the largest: half precision rounds each pass in its own way."""
RESUMABLE: weakref.WeakKeyDictionary[Any, bool] = weakref.WeakKeyDictionary()
"""For each network in use, whether it can go on from a cache; gone with it."""


class WindowState:
    """The tokens of one window, the head's logit at each, and the cache from which the network goes on."""

    def __init__(self, network: HarmClassifier):
        """Begin an empty window."""
        self.network = network
        self.ids: list[int] = []
        self.logits = torch.empty(0, dtype=torch.float64)
        self.cache: DynamicCache | None = None

    def follow(self, ids: list[int]) -> None:
        """Take the window's ids as they are now; run those that are new through the network.

        Raises:
            Exception: What the network raises; the window is empty then.
        """
        if ids == self.ids:
            return
        kept = count_shared(self.ids, ids) if self.cache is not None else 0
        if kept == len(ids):
            self.crop(kept)
            return
        try:
            cache = self.crop(kept)
            part = torch.tensor([ids[kept:]], device=self.network.device)
            with torch.inference_mode():
                logits = self.network.score_more_tokens(part, cache)[0].cpu().double()
            self.logits = torch.cat([self.logits, logits])
            self.ids = ids
        except BaseException:
            self.clear()  # a cache that was cut or grew half way belongs to no ids
            raise

    def crop(self, length: int) -> DynamicCache:
        """Cut the window to its first tokens, and return the cache of those."""
        if self.cache is None or length == 0:
            self.cache = DynamicCache()
        else:
            self.cache.crop(length - len(self.ids))  # minus the number of tokens that go
        self.ids, self.logits = self.ids[:length], self.logits[:length]
        return self.cache

    def clear(self) -> None:
        """Forget everything."""
        self.cache = None
        self.crop(0)

    def close(self) -> None:
        """Give the cache's memory back; should the window change after all, it is read from its start."""
        self.cache = None


def count_shared(old: Sequence[int], new: Sequence[int]) -> int:
    """Return how many ids two lists share from their start.

    Example:
        >>> count_shared([5, 6, 7, 8], [5, 6, 9]), count_shared([5], [5, 6]), count_shared([], [5])
        (2, 1, 0)
    """
    length = min(len(old), len(new))
    if old[:length] == new[:length]:
        return length
    return next(i for i in range(length) if old[i] != new[i])


def pool_logits(network: HarmClassifier, logits: torch.Tensor, head: int) -> float:
    """Return what the network's pooling makes of a window's token logits.

    The head is linear, so the logit of a mean state is the mean of the logits. Everything is added up anew from the
    tokens' own logits, in double precision: nothing runs along that a cut would have to undo.

    Args:
        network: Says how it pools.
        logits: A logit a token, (T,), T at least 1.
        head: Tokens before the response.
    """
    if network.pooling == "last":
        return logits[-1].item()
    mask = torch.ones(1, len(logits), dtype=torch.int64)
    if network.pooling == "mean_response":
        mask[0, :head] = 0
    return pool_stretches(logits.unsqueeze(0), mask, network.stretches, network.margin).item()


def can_resume(network: HarmClassifier) -> bool:
    """Tell whether a network can go on from a cache and gives the logits that it gives for the whole text.

    One with dynamic RoPE cannot, for its frequencies change with the length of the text. Of the others a short text is
    asked for in one part and in two, once for each network: recurrent ones and those that look ahead show there.
    """
    if network not in RESUMABLE:
        RESUMABLE[network] = not keeps_state(network) and _reads_in_parts(network)
    return RESUMABLE[network]


def _reads_in_parts(network: HarmClassifier) -> bool:
    """Tell whether the logits of a short text are the same in two parts, with a cache that was cut once."""
    ids = list(range(1, PROBE_TOKENS + 1))
    whole, parts = WindowState(network), WindowState(network)
    try:
        whole.follow(ids)
        parts.follow(ids[:-1])
        parts.follow([*ids[:2], ids[-1]])
        parts.follow(ids)
        with torch.inference_mode():
            row = torch.tensor([ids], device=network.device)
            plain = network.score_tokens(row, torch.ones_like(row))[0].cpu().double()
    except Exception:  # noqa: BLE001 - a cache of another kind, a network without one: each fails in its own way
        return False
    scale = PROBE_TOLERANCE * max(1.0, plain.abs().max().item())
    # A network that gives no finite number is read as it is; what it gives is withheld.
    differences = [(state.logits - plain).abs().nan_to_num(0.0).max().item() for state in (whole, parts)]
    return max(differences) <= scale
