"""Scores of stretches of a response: harm in a few sentences does not drown in the mean over many.

The head is linear, so the logit of the mean state of a stretch is the mean of its tokens' logits, and one causal pass
gives that of every stretch. A response of n tokens is judged by the highest of the whole of it, and of each run of as
many tokens as `stretches` names that fits into it, less a margin: the highest of many runs lies above their mean by
chance alone, and without the margin long ordinary answers would pay for it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch


def stretch_means(token_logits: torch.Tensor, mask: torch.Tensor, length: int) -> torch.Tensor:
    """Return the mean logit of the `length` response tokens that end at each token.

    Args:
        token_logits: A logit a token, (B, T).
        mask: 1 for the response's tokens, (B, T).
        length: Tokens of a stretch, L.

    Returns:
        Means, (B, T); minus infinity where fewer than L tokens of the response end there.

    Example:
        >>> logits = torch.tensor([[9.0, 1.0, 3.0, 8.0]])
        >>> stretch_means(logits, torch.tensor([[0, 1, 1, 1]]), 2).tolist()
        [[-inf, -inf, 2.0, 5.5]]
    """
    lowest = token_logits.new_full((), float("-inf"))
    if length > token_logits.shape[1]:
        return lowest.expand_as(token_logits)
    ours = mask.bool()
    values = torch.where(ours, token_logits, 0.0)
    # Every stretch is added up on its own: differences of running sums would differ in the last bits by what stands
    # before, and would carry a NaN on to all later stretches.
    runs = values.unfold(1, length, 1).mean(2)  # (B, T - L + 1)
    whole = ours.unfold(1, length, 1).all(2)
    runs = torch.where(whole, runs, lowest)
    return torch.cat([lowest.expand(token_logits.shape[0], length - 1), runs], 1)


def pool_stretches(
    token_logits: torch.Tensor, mask: torch.Tensor, lengths: Sequence[int], margin: float = 0.0
) -> torch.Tensor:
    """Return the highest mean logit over the whole response and its stretches.

    Args:
        token_logits: A logit a token, (B, T).
        mask: 1 for the response's tokens, (B, T).
        lengths: Tokens of the stretches; one longer than a response takes no part in its logit.
        margin: Taken off the means of stretches, not off that of the whole.

    Returns:
        Logits, (B,). NaN where a token of the response has none. Padding, and what else is in the batch, changes
        nothing.

    Example:
        Means: whole 2, of two tokens at most 3.5.

        >>> pool_stretches(torch.tensor([[0.0, 1.0, 2.0, 5.0]]), torch.ones(1, 4), [2, 9]).tolist()
        [3.5]
        >>> pool_stretches(torch.tensor([[0.0, 1.0, 2.0, 5.0]]), torch.ones(1, 4), [2, 9], margin=1.0).tolist()
        [2.5]
    """
    ours = mask.bool()
    whole = torch.where(ours, token_logits, 0.0).sum(1) / ours.sum(1).clamp(min=1)
    found = [whole, *(stretch_means(token_logits, mask, length).amax(1) - margin for length in lengths)]
    return torch.stack(found).amax(0)  # NaN wins


def running_logits(
    token_logits: torch.Tensor, mask: torch.Tensor, lengths: Sequence[int], margin: float = 0.0
) -> torch.Tensor:
    """Return what `pool_stretches` gives for the response up to each of its tokens.

    Attention looks back only, so one pass over the whole response scores every prefix of it.

    Args:
        token_logits: A logit a token, (B, T).
        mask: 1 for the response's tokens, (B, T).
        lengths: Tokens of the stretches.
        margin: As there.

    Returns:
        Logits, (B, T); minus infinity before the response. Behind its end the last one stays.

    Example:
        >>> running_logits(torch.tensor([[9.0, 0.0, 4.0, -1.0]]), torch.tensor([[0, 1, 1, 1]]), [2]).tolist()
        [[-inf, 0.0, 2.0, 2.0]]
    """
    ours = mask.bool()
    count = ours.cumsum(1)
    means = torch.where(ours, token_logits, 0.0).cumsum(1) / count.clamp(min=1)
    means = means.masked_fill(count == 0, float("-inf"))
    best = [stretch_means(token_logits, mask, length).cummax(1).values - margin for length in lengths]
    return torch.stack([means, *best]).amax(0)
