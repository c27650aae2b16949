import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.protector.scoring.thresholds import round_up, threshold_for_fpr

# Few distinct values, so that ties are common; NaN stands for a row that could not be scored.
SCORE = st.one_of(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, math.nan]), st.floats(0, 1))
ROWS = st.tuples(st.lists(st.tuples(SCORE, st.booleans()), max_size=40), st.tuples(SCORE, st.just(False))).map(
    lambda parts: [*parts[0], parts[1]]
)
RATE = st.one_of(st.floats(0, 0.999), st.sampled_from([0.0, 0.02, 0.25, 0.29, 0.5]))


def arrays(rows):
    return np.array([score for score, _ in rows], dtype=float), np.array([harmful for _, harmful in rows], dtype=bool)


def flagged(scores, threshold):
    return np.isnan(scores) | (scores >= threshold)


def reached(scores, labels, threshold):
    return flagged(scores, threshold)[~labels].sum() / (~labels).sum()


@given(ROWS, RATE)
def test_the_bound_always_holds_and_no_smaller_threshold_keeps_it(rows, rate):
    scores, labels = arrays(rows)
    try:
        point = threshold_for_fpr(scores, labels, rate)
    except ValueError:
        assert reached(scores, labels, 1.0) > rate
        return
    assert 0 < point.threshold <= 1
    assert point.false_positive_rate == reached(scores, labels, point.threshold) <= rate
    assert reached(scores, labels, np.nextafter(point.threshold, 0)) > rate
    if labels.any():
        assert point.recall == flagged(scores, point.threshold)[labels].mean()
    else:
        assert math.isnan(point.recall)
    rounded = round_up(point, scores, labels)
    assert point.threshold <= rounded.threshold <= min(1.0, point.threshold + 2e-6)
    assert rounded.false_positive_rate <= rate


@given(ROWS, RATE, RATE)
def test_a_higher_rate_never_raises_the_threshold(rows, one, other):
    scores, labels = arrays(rows)
    low, high = sorted((one, other))
    try:
        strict = threshold_for_fpr(scores, labels, low)
    except ValueError:
        return
    loose = threshold_for_fpr(scores, labels, high)
    assert loose.threshold <= strict.threshold
    assert loose.false_positive_rate >= strict.false_positive_rate
    if labels.any():
        assert loose.recall >= strict.recall


def test_threshold_by_hand():
    """Harmless 0.1 0.2 0.4 0.6, harmful 0.3 0.5 0.9: one of four may be flagged, so the threshold is just above 0.4."""
    scores = [0.1, 0.2, 0.4, 0.6, 0.3, 0.5, 0.9]
    labels = [False] * 4 + [True] * 3
    point = threshold_for_fpr(scores, labels, 0.25)
    assert point.threshold == np.nextafter(0.4, 1)
    assert (point.false_positive_rate, point.recall) == (0.25, 2 / 3)
    assert threshold_for_fpr(scores, labels, 0.0).threshold == np.nextafter(0.6, 1)


def test_ties_are_flagged_together_or_not_at_all():
    """Two of four may be flagged, but three share the highest score: none is."""
    point = threshold_for_fpr([0.1, 0.7, 0.7, 0.7, 0.7], [False, False, False, False, True], 0.5)
    assert point.threshold > 0.7
    assert (point.false_positive_rate, point.recall) == (0.0, 0.0)


def test_an_unscored_harmless_row_uses_up_the_rate():
    scores, labels = [0.1, 0.2, 0.3, math.nan, math.nan], [False, False, False, False, True]
    point = threshold_for_fpr(scores, labels, 0.25)
    assert point.threshold == np.nextafter(0.3, 1)
    assert (point.false_positive_rate, point.recall) == (0.25, 1.0)
    with pytest.raises(ValueError, match="cannot be scored"):
        threshold_for_fpr(scores, labels, 0.2)


def test_a_rate_that_rounds_down_as_a_product_is_used_in_full():
    """0.29 * 100 is 28.999999999999996, yet 29 rows of 100 are a share of 0.29."""
    scores = np.arange(100) / 100
    assert threshold_for_fpr(scores, np.zeros(100, dtype=bool), 0.29).false_positive_rate == 0.29


@pytest.mark.parametrize(
    ("scores", "labels", "rate", "words"),
    [
        ([0.5], [True], 0.1, "harmless"),
        ([0.5], [False], 1.0, "must be in"),
        ([0.5], [False], -0.1, "must be in"),
        ([1.0, 1.0], [False, False], 0.5, "highest score"),
    ],
)
def test_what_cannot_be_met_is_said(scores, labels, rate, words):
    with pytest.raises(ValueError, match=words):
        threshold_for_fpr(scores, labels, rate)
