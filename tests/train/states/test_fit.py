"""The fit: known answers, and the same whatever the scale of the states."""

from __future__ import annotations

import pytest
import torch

from llava.train.states.fit import fit_head


def make_states(count=200):
    draw = torch.Generator().manual_seed(0)
    states = torch.randn(count, 1, 3, generator=draw)
    return states, (states[:, 0, 0] > 0).float().tolist()


def test_it_finds_the_direction():
    states, labels = make_states()
    fitted = fit_head(states, labels, [1.0] * len(labels), 1e-3)
    weights = fitted.directions[0]
    assert weights[0] > 5 * weights[1:].abs().max()
    assert ((fitted.logits(states) > 0) == (torch.tensor(labels) > 0.5)).float().mean() > 0.97


def test_scale_and_shift_of_the_states_change_nothing():
    states, labels = make_states()
    weights = [1.0] * len(labels)
    moved = states * torch.tensor([100.0, 0.01, 1.0]) + torch.tensor([7.0, -3.0, 0.0])
    one, other = fit_head(states, labels, weights, 1e-2), fit_head(moved, labels, weights, 1e-2)
    torch.testing.assert_close(one.logits(states), other.logits(moved), atol=1e-3, rtol=1e-3)


def test_the_gradient_is_zero_at_the_end():
    """Two rows of one number, ±1 once standardised: by hand, the weight solves 2pw = 1 - σ(w)."""
    states = torch.tensor([[[3.0]], [[5.0]]])
    penalty = 0.1
    fitted = fit_head(states, [0.0, 1.0], [1.0, 1.0], penalty)
    weight = float(fitted.directions[0, 0])  # the deviation is 1
    assert 2 * penalty * weight == pytest.approx(1 - torch.sigmoid(torch.tensor(weight)).item(), abs=1e-4)
    assert fitted.bias == pytest.approx(-4 * weight, abs=1e-3)


def test_rows_that_weigh_nothing_are_not_learnt():
    states, labels = make_states()
    wrong = [1 - label for label in labels]
    doubled = torch.cat([states, states])
    fitted = fit_head(doubled, labels + wrong, [1.0] * 200 + [0.0] * 200, 1e-3)
    assert fitted.directions[0, 0] > 0


def test_a_number_that_never_changes_says_nothing():
    states, labels = make_states()
    states[:, :, 2] = 4.0
    fitted = fit_head(states, labels, [1.0] * len(labels), 1e-3)
    assert fitted.directions[0, 2] == 0.0


def test_soft_targets_pull_less():
    states, labels = make_states()
    soft = [0.8 if label else 0.2 for label in labels]
    hard, mild = (fit_head(states, targets, [1.0] * 200, 1e-3) for targets in (labels, soft))
    assert 0 < mild.directions[0, 0] < hard.directions[0, 0]
