"""The judge's fit, on a few rows."""

from __future__ import annotations

import numpy as np
import pytest

from llava.data.training.pairs import DetectorRow
from llava.eval.judges.answer_features import BINS, describe_answer
from llava.quality.detector_rows import KeyedRow
from llava.train.judge.fit import choose_threshold, fit_weights, fold_of, score_folds, weigh_rows
from llava.train.judge.rows import SHARES, make_rows

LOOSE = 1e-5
"""A penalty under which a few rows are learnt by heart."""


@pytest.fixture(scope="module")
def rows():
    return make_rows(4)


@pytest.fixture(scope="module")
def features(rows):
    return [describe_answer(keyed.row.prompt, keyed.row.response) for keyed in rows]


def test_a_fit_tells_its_own_rows_apart_and_is_the_same_in_another_order(rows, features):
    labels = [keyed.row.harmful for keyed in rows]
    weights = fit_weights(features, labels, np.ones(len(rows)), LOOSE)
    scores = np.array([weights.score(each) for each in features])
    assert ((scores > 0.5) == labels).mean() > 0.95
    turned = fit_weights(features[::-1], labels[::-1], np.ones(len(rows)), LOOSE)
    assert [turned.score(each) for each in features] == pytest.approx(scores, abs=0.02)


def test_tables_that_are_left_out_keep_no_weight(rows, features):
    weights = fit_weights(features, [keyed.row.harmful for keyed in rows], np.ones(len(rows)), tables=("words",))
    assert {table for table in BINS if weights.tables[table].any()} == {"words"}


def test_folds_keep_keys_together_and_score_every_row(rows, features):
    scores = score_folds(rows, features, SHARES)
    assert len(scores) == len(rows)
    assert all(0 < score < 1 for score in scores)
    assert {fold_of(keyed.key) for keyed in rows} == {0, 1, 2, 3}


def test_sources_weigh_what_they_should():
    rows = [KeyedRow(DetectorRow("q", str(i), False, "a" if i else "b"), "q") for i in range(5)]
    weights = weigh_rows(rows, {"a": 1.0, "b": 1.0})
    assert weights.tolist() == pytest.approx([2.5, 0.625, 0.625, 0.625, 0.625])


def test_the_threshold_weighs_rows():
    labels, scores = [False, True, False, True], [0.1, 0.2, 0.3, 0.9]
    assert choose_threshold(labels, scores, np.ones(4)) in (0.15, 0.6)
    assert choose_threshold(labels, scores, np.array([1, 9, 1, 1])) == 0.15
    assert choose_threshold(labels, scores, np.array([1, 1, 9, 1])) == 0.6
