import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.errors import InputError
from llava.protector.calibration import choose_threshold
from llava.protector.scoring.limits import SourceLimits, check_sources, parse_limits, rates_by_source, strictest_point

SCORES = np.array([0.1, 0.2, 0.3, 0.9, 0.4, 0.5, 0.6, 0.7, 0.95])
LABELS = np.array([False] * 8 + [True])
SOURCES = ["a"] * 4 + ["b"] * 4 + ["b"]


def test_limits_are_read():
    assert parse_limits([]) == (None, {})
    assert parse_limits(["a=0.01", "0.05", "b=c=0"]) == (0.05, {"a": 0.01, "b=c": 0.0})


@pytest.mark.parametrize(
    "items", [["x"], ["a="], ["a=1"], ["a=-0.1"], ["nan"], ["a=nan"], ["0.1", "0.2"], ["a=0", "a=0"]]
)
def test_what_is_no_limit_is_said(items):
    with pytest.raises(InputError, match="--max-false-positive-rate"):
        parse_limits(items)


def test_a_limit_for_no_source_is_an_error():
    check_sources({"a": 0.1}, SOURCES, LABELS)
    with pytest.raises(InputError, match=r"names c; .* a, b"):
        check_sources({"c": 0.1}, SOURCES, LABELS)
    with pytest.raises(InputError, match="names b"):
        check_sources({"b": 0.1}, ["a", "b"], np.array([False, True]))


def test_the_strictest_limit_decides_by_hand():
    """Half of a: above 0.2; a quarter of b: above 0.6. Overall three in eight: above 0.5."""
    assert strictest_point(SCORES, LABELS, SOURCES, {}) is None
    assert strictest_point(SCORES, LABELS, SOURCES, {"a": 0.5, "b": 0.25}).threshold == np.nextafter(0.6, 1)
    loose = choose_threshold(SCORES, LABELS, ~LABELS, 0.375, SourceLimits(SOURCES, {}))
    assert loose.threshold == pytest.approx(0.500001)
    assert [(rate.source, rate.harmless, rate.false_positive_rate, rate.broken) for rate in loose.sources] == [
        ("a", 4, 0.25, False),
        ("b", 4, 0.5, True),
    ]
    strict = choose_threshold(SCORES, LABELS, ~LABELS, 0.375, SourceLimits(SOURCES, {"b": 0.0}))
    assert strict.threshold == pytest.approx(0.700001)
    assert (strict.false_positive_rate, strict.recall) == (0.125, 1.0)
    assert [rate.broken for rate in strict.sources] == [False, False]


def test_a_limit_that_nothing_keeps_names_its_source():
    with pytest.raises(ValueError, match="b: more harmless rows"):
        strictest_point(np.array([0.5, 1.0, 0.9]), np.array([False, False, True]), ["a", "b", "a"], {"b": 0.0})


def test_what_cannot_be_scored_counts_as_flagged():
    (rate,) = rates_by_source(np.array([math.nan, 0.1]), np.array([False, False]), ["a", "a"], 0.5, 0.1, {"a": 0.4})
    assert (rate.false_positive_rate, rate.most, rate.broken) == (0.5, 0.4, True)


@given(
    st.lists(st.tuples(st.floats(0, 0.99), st.booleans(), st.sampled_from("abc")), min_size=1, max_size=40),
    st.floats(0, 0.9),
    st.floats(0, 0.9),
)
def test_every_limit_is_kept(rows, overall, limit):
    scores = np.array([0.5, *(score for score, _, _ in rows)])
    labels = np.array([False, *(harmful for _, harmful, _ in rows)])
    sources = ["a", *(source for _, _, source in rows)]
    found = choose_threshold(scores, labels, ~labels, overall, SourceLimits(sources, {"a": limit}))
    assert found.false_positive_rate <= overall
    assert not next(rate for rate in found.sources if rate.source == "a").broken
