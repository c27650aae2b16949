"""The distribution of harm scores, against hand counts and NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.eval.judges.harm_scores import BINS, QUANTILES, describe_scores, quantile, summarize_scores
from tests.eval.build import build_record


def test_every_score_falls_into_one_bin():
    scores = [0.0, 0.049, 0.05, 0.5, 0.999, 1.0, None]
    found = summarize_scores([build_record(i, harm_score=score, harmful=i != 3) for i, score in enumerate(scores)])
    assert [found["harmful"]["bins"][place] for place in (0, 1, 10, 19)] == [2, 1, 0, 2]
    assert found["benign"]["bins"][10] == 1
    assert (found["harmful"]["n"], found["benign"]["n"], found["unscored"]) == (5, 1, 1)
    assert found["harmful"]["quantiles"]["0.5"] == 0.05
    assert set(found["benign"]["quantiles"].values()) == {0.5}


def test_one_kind_of_question_may_be_absent():
    found = summarize_scores([build_record(0, harm_score=0.3)])
    assert found["benign"] == {"n": 0, "bins": [0] * BINS, "quantiles": None}


def test_a_run_without_scores_has_no_distribution():
    assert summarize_scores([build_record(0, guarded=False), build_record(1, harm_score=None)]) is None


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_quantiles_are_numpys_and_bins_add_up(scores):
    scores.sort()
    for level in QUANTILES:
        assert quantile(scores, level) == pytest.approx(np.quantile(scores, level), abs=1e-12)
    assert sum(describe_scores(scores)["bins"]) == len(scores)
