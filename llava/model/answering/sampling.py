"""Sampling whose draws belong to a row, not to the batch that it is answered in."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import LogitsProcessor


class GumbelNoise(LogitsProcessor):
    """Make greedy decoding sample: argmax(logits / temperature + Gumbel noise) is a draw from the softmax.

    Each row draws its noise from its own generator, one vector a step, so a row's sample depends on its seed and its
    logits alone, not on its neighbours in the batch, the batch's size or the process.
    """

    def __init__(self, temperature: float, seeds: Sequence[int]):
        self.temperature = temperature
        # On the CPU in double precision, so that every device sees the same noise and its tail is not cut off.
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return noisy scores (B, V)."""
        width = scores.shape[-1]
        uniform = torch.stack([torch.rand(width, generator=g, dtype=torch.float64) for g in self.generators])  # (B, V)
        noise = -torch.log(-torch.log(uniform.clamp_min_(1e-300)))
        return scores.double() / self.temperature + noise.to(scores.device)

    def select(self, rows: Sequence[int]) -> GumbelNoise:
        """Return the noise of some of the rows, to be drawn on from where it is."""
        chosen = GumbelNoise(self.temperature, [])
        chosen.generators = [self.generators[row] for row in rows]
        return chosen
