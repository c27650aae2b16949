"""The thresholds of a cascade, on rows whose answers can be worked out by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.protector.states.choice import NEVER, choose_cascade, flag_rows, measure_cascade

# Harmful rows at 0.4, 0.6, 0.95; harmless ones at 0.05, 0.1, 0.2, 0.5, 0.7. The detector catches all harmful ones, and
# flags the harmless one at 0.5.
STATES = [0.4, 0.6, 0.95, 0.05, 0.1, 0.2, 0.5, 0.7]
DETECTED = [True, True, True, False, False, False, True, False]
LABELS = [True, True, True, False, False, False, False, False]


def test_clear_rows_are_left_to_the_head():
    chosen = choose_cascade(STATES, DETECTED, LABELS)
    # Below the lowest caught row nothing is lost; above the highest harmless row nothing is flagged in vain.
    assert (chosen.low, chosen.high) == (0.4, 0.700001)
    assert chosen.asked == pytest.approx(2 / 5)  # 0.5 and 0.7
    assert chosen.asked_all == pytest.approx(4 / 8)
    assert (chosen.recall, chosen.detector_recall) == (1.0, 1.0)
    assert chosen.false_positive_rate == chosen.detector_false_positive_rate == pytest.approx(1 / 5)


def test_recall_that_may_be_lost_saves_work():
    chosen = choose_cascade(STATES, DETECTED, LABELS, recall_loss=0.34)
    # The row at 0.4 passes, one of three; so does the false alarm at 0.5, and the one at 0.7 may take its place unread.
    assert chosen.low == chosen.high == 0.6
    assert chosen.asked == 0.0
    assert chosen.recall == pytest.approx(2 / 3)
    assert chosen.false_positive_rate == pytest.approx(1 / 5)


def test_false_positives_that_the_low_threshold_saves_may_be_spent_above():
    states = [0.4, 0.6, 0.05, 0.3, 0.5, 0.7]
    chosen = choose_cascade(states, [True, True, False, True, False, False], [True, True, False, False, False, False])
    # The detector's false positive at 0.3 passes, so the head may flag the row at 0.7, and nobody needs to read it.
    assert chosen.low == 0.4
    assert chosen.asked == pytest.approx(1 / 4)
    assert chosen.false_positive_rate == pytest.approx(1 / 4)


def test_no_source_pays_for_another():
    states = [0.4, 0.6, 0.05, 0.3, 0.5, 0.7]
    detected, labels = [True, True, False, True, False, False], [True, True, False, False, False, False]
    sources = ["a", "a", "a", "a", "b", "b"]
    chosen = choose_cascade(states, detected, labels, sources=sources)
    assert chosen.asked == pytest.approx(2 / 4)  # none of b's rows may be flagged, so both are read
    loose = choose_cascade(states, detected, labels, sources=sources, limits={"b": 0.5})
    assert loose.asked == pytest.approx(1 / 4)


def test_what_has_no_score_is_read():
    flagged, asked = flag_rows(np.array([math.nan, math.nan]), np.array([True, False]), 0.2, 0.8)
    assert asked.tolist() == [True, True]
    assert flagged.tolist() == [True, False]
    chosen = choose_cascade([math.nan] * 4, [True, False, False, False], [True, True, False, False])
    assert (chosen.asked, chosen.recall) == (1.0, 0.5)


def test_both_labels_are_needed():
    with pytest.raises(ValueError, match="harmful and harmless"):
        choose_cascade([0.5, 0.6], [True, True], [True, True])


@given(
    st.lists(
        st.tuples(st.sampled_from([0.1, 0.25, 0.5, 0.625, 0.75, math.nan]), st.booleans(), st.booleans()),
        min_size=2,
        max_size=9,
    ),
    st.sampled_from([0.0, 0.25, 0.5]),
)
def test_no_other_pair_of_thresholds_asks_less(rows, loss):
    states, detected, labels = (np.array(column) for column in zip(*rows, strict=True))
    detected, labels = detected.astype(bool), labels.astype(bool)
    if labels.all() or not labels.any():
        return
    chosen = choose_cascade(states, detected, labels, recall_loss=loss)
    assert chosen.recall >= chosen.detector_recall - loss - 1e-9
    assert chosen.false_positive_rate <= chosen.detector_false_positive_rate + 1e-9
    grid = sorted({0.0, NEVER, *states[np.isfinite(states)], *(states[np.isfinite(states)] + 1e-6)})
    for low, high in itertools.combinations_with_replacement(grid, 2):
        other = measure_cascade(states, detected, labels, low, high)
        fits = other.recall >= chosen.detector_recall - loss - 1e-9
        fits &= other.false_positive_rate <= chosen.detector_false_positive_rate + 1e-9
        assert not fits or other.asked >= chosen.asked - 1e-9
