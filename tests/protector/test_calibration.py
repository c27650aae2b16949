import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.protector.calibration import (
    LOG_TEMPERATURES,
    calibrate_scores,
    fit_temperature,
    to_logits,
    to_scores,
)
from llava.protector.scoring.thresholds import operating_point


@pytest.mark.parametrize("scale", [0.2, 1.0, 3.0])
def test_temperature_recovers_a_known_scaling(scale):
    """Labels drawn with the chance sigmoid(z); logits z * scale are calibrated by the temperature `scale`."""
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 2, 40_000)
    labels = generator.random(40_000) < to_scores(logits)
    assert fit_temperature(logits * scale, labels) == pytest.approx(scale, rel=0.03)


def test_temperature_by_hand():
    """Logits of 1, three of four right: sigmoid(1 / T) = 3/4, so T = 1 / ln 3."""
    assert fit_temperature([1.0, 1.0, 1.0, -1.0, -1.0, -1.0, -1.0, 1.0], [True] * 4 + [False] * 4) == pytest.approx(
        1 / math.log(3), rel=1e-6
    )


def test_temperature_stays_in_its_range_and_skips_unscored_rows():
    low, high = map(math.exp, LOG_TEMPERATURES)
    assert fit_temperature([5.0, -5.0], [True, False]) == pytest.approx(low, rel=1e-6)
    assert fit_temperature([-5.0, 5.0], [True, False]) == pytest.approx(high, rel=1e-6)
    rows = [1.0, 1.0, 1.0, -1.0, -1.0, -1.0, -1.0, 1.0]
    labels = [True] * 4 + [False] * 4
    assert fit_temperature([*rows, math.nan], [*labels, True]) == fit_temperature(rows, labels)
    with pytest.raises(ValueError, match="harmful and harmless"):
        fit_temperature([1.0, math.nan], [True, False])


@given(st.lists(st.floats(-30, 30), min_size=1, max_size=20))
def test_logits_and_scores_are_each_others_inverse(logits):
    assert to_logits(to_scores(np.array(logits))) == pytest.approx(logits, abs=0.02)


def test_ends_and_nan_of_the_scale():
    assert np.isfinite(to_logits(np.array([0.0, 1.0]))).all()
    assert np.isnan(to_scores(to_logits(np.array([math.nan])))).all()


def test_calibration_counts_the_asked_source_alone_and_undoes_the_old_temperature():
    generator = np.random.default_rng(1)
    logits = generator.normal(0, 2, 20_000)
    labels = generator.random(20_000) < to_scores(logits)
    benign = ~labels & (np.arange(20_000) % 2 == 0)
    overconfident = to_scores(logits * 4 / 2)  # a network four times too sure, at temperature 2
    found = calibrate_scores(overconfident, labels, benign, 0.05, temperature=2.0)
    assert found.temperature == pytest.approx(4, rel=0.05)
    assert found.ece_after < 0.02 < found.ece_before
    again = to_scores(logits * 4 / found.temperature)
    point = operating_point(again[benign | labels], labels[benign | labels], found.threshold)
    assert point.false_positive_rate == found.false_positive_rate
    assert 0.045 < found.false_positive_rate <= 0.05
    assert found.harmless == benign.sum()
