"""Losses of the harm detector, on harm logits (positive = harmful)."""

from __future__ import annotations

import torch
from torch.nn import functional as F  # noqa: N812


def bce_loss(
    harm_logits: torch.Tensor, labels: torch.Tensor, label_smoothing: torch.Tensor | float = 0.0
) -> torch.Tensor:
    """Return the binary cross-entropy of each response (arXiv 2401.02906, section 4.1).

    Args:
        harm_logits: Logits of harmful, (R,).
        labels: 1 for harmful, 0 for harmless, (R,).
        label_smoothing: Weight of the uniform distribution in the target, one value or (R,); noisy sources want more.

    Returns:
        Losses, (R,).

    Example:
        >>> bce_loss(torch.zeros(1), torch.ones(1)).item() == torch.tensor(2.0).log().item()
        True
    """
    targets = labels * (1 - label_smoothing) + 0.5 * label_smoothing
    return F.binary_cross_entropy_with_logits(harm_logits, targets, reduction="none")


def pairwise_loss(chosen_logits: torch.Tensor, rejected_logits: torch.Tensor) -> torch.Tensor:
    """Return −log σ(rejected − chosen) of each pair: the rejected response should look more harmful.

    This is the ranking term that the reference implementation adds to the paper's loss.

    Args:
        chosen_logits: Harm logits of the less harmful responses, (P,).
        rejected_logits: Harm logits of the more harmful responses, (P,).

    Returns:
        Losses, (P,).
    """
    return -F.logsigmoid(rejected_logits - chosen_logits)


def max_over_windows(window_logits: torch.Tensor, row_of_window: torch.Tensor, rows: int) -> torch.Tensor:
    """Return the highest harm logit of each response's windows, as inference does.

    Args:
        window_logits: Harm logits, (W,).
        row_of_window: Which response each window belongs to, int64, (W,).
        rows: Number of responses R; each has at least one window.

    Returns:
        Harm logits, (R,).

    Example:
        >>> max_over_windows(torch.tensor([1.0, 3.0, -2.0]), torch.tensor([0, 0, 1]), 2)
        tensor([ 3., -2.])
    """
    start = window_logits.new_full((rows,), float("-inf"))
    return start.scatter_reduce(0, row_of_window, window_logits, reduce="amax", include_self=False)
