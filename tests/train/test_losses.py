from math import exp, log

import pytest
import torch

from llava.train.losses import bce_loss, max_over_windows, pairwise_loss


def sigmoid(x):
    return 1 / (1 + exp(-x))


def test_bce_by_hand():
    """harmful at logit 2: -log σ(2); harmless at logit -1: -log(1 - σ(-1)) = -log σ(1)."""
    losses = bce_loss(torch.tensor([2.0, -1.0]), torch.tensor([1.0, 0.0]))
    assert losses.tolist() == pytest.approx([-log(sigmoid(2)), -log(sigmoid(1))], rel=1e-6)


def test_label_smoothing_by_hand():
    """Smoothing 0.4 turns the target 1 into 0.8, the target 0 into 0.2."""
    losses = bce_loss(torch.tensor([2.0, 2.0]), torch.tensor([1.0, 0.0]), torch.tensor([0.4, 0.4]))
    p = sigmoid(2)
    assert losses.tolist() == pytest.approx(
        [-0.8 * log(p) - 0.2 * log(1 - p), -0.2 * log(p) - 0.8 * log(1 - p)], rel=1e-6
    )


def test_full_smoothing_forgets_the_label():
    losses = bce_loss(torch.tensor([0.7, 0.7]), torch.tensor([1.0, 0.0]), 1.0)
    assert losses[0] == losses[1]


def test_pairwise_by_hand():
    """rejected 3 above chosen: -log σ(3); no difference: log 2."""
    losses = pairwise_loss(torch.tensor([-1.0, 5.0]), torch.tensor([2.0, 5.0]))
    assert losses.tolist() == pytest.approx([-log(sigmoid(3)), log(2)], rel=1e-6)


def test_pairwise_wants_the_rejected_side_to_look_more_harmful():
    chosen, rejected = torch.tensor([0.0], requires_grad=True), torch.tensor([0.0], requires_grad=True)
    pairwise_loss(chosen, rejected).sum().backward()
    assert chosen.grad.item() == pytest.approx(0.5)
    assert rejected.grad.item() == pytest.approx(-0.5)


def test_max_over_windows_sends_the_gradient_to_the_highest_window():
    logits = torch.tensor([1.0, 4.0, 2.0, -3.0], requires_grad=True)
    highest = max_over_windows(logits, torch.tensor([0, 0, 0, 1]), 2)
    assert highest.tolist() == [4.0, -3.0]
    highest.sum().backward()
    assert logits.grad.tolist() == [0.0, 1.0, 0.0, 1.0]
