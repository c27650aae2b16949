import numpy as np
import pytest

from llava.quality.bootstrap import bootstrap_intervals, draw_weights, interval, number_groups


def mean_of(values):
    return lambda weights: {"mean": weights @ values / weights.sum(axis=1)}


def test_a_group_is_drawn_with_all_its_rows():
    groups = number_groups(["a", "b", "a", "c"])
    (weights,) = draw_weights(groups, 50, seed=0)
    assert weights.shape == (50, 4)
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()


def test_all_rounds_together_are_as_many_as_asked_for():
    assert sum(len(weights) for weights in draw_weights(np.arange(3), 250, seed=0)) == 250


def test_the_interval_is_that_of_the_mean():
    """The mean of 400 coins has a standard error of 0.025."""
    low, high = bootstrap_intervals(mean_of(np.arange(400) % 2.0), np.arange(400))["mean"]
    assert (low, high) == pytest.approx((0.451, 0.549), abs=0.01)


def test_one_group_gives_no_width_and_the_seed_decides():
    values = np.array([0.0, 0.5])
    assert bootstrap_intervals(mean_of(values), np.zeros(2, dtype=int), 20)["mean"] == [0.25, 0.25]
    draws = [bootstrap_intervals(mean_of(values), np.arange(2), 30, seed=seed)["mean"] for seed in (1, 1)]
    assert draws[0] == draws[1]


def test_what_is_rarely_defined_has_no_interval():
    assert interval(np.array([np.nan] * 6 + [1.0] * 94)) is None
    assert interval(np.array([np.nan] * 5 + [1.0] * 95)) == [1.0, 1.0]
