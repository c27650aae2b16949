"""Figures against the project's other metrics and scikit-learn; intervals by question."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.quality import metrics
from llava.quality.bootstrap import draw_weights
from llava.quality.guard_bench.figures import METRICS, Scored, compute, measure, measure_evasion

ROWS = st.lists(
    st.tuples(st.booleans(), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0]), st.sampled_from("abcd")),
    min_size=1,
    max_size=30,
)


def build(rows):
    labels, scores, groups = zip(*rows, strict=True)
    return Scored.build(labels, scores, groups)


@given(ROWS)
def test_the_figures_are_those_of_the_training_metrics(rows):
    data = build(rows)
    other = metrics.Scored(data.labels, data.scores, data.groups)
    both = 0 < data.labels.sum() < len(data)
    found = measure(data, 0.5, resamples=0)
    for name, function in metrics.build_metrics(0.5).items():
        if name in METRICS and (name != "auprc" or both):
            expected = function(other)
            assert found[name] == (pytest.approx(expected) if math.isfinite(expected) else None)


def test_recall_at_a_low_rate_counts_whole_steps():
    labels = [True] * 10 + [False] * 200
    scores = [0.9] * 4 + [0.5] * 6 + [0.95] * 2 + [0.4] * 198
    found = measure(Scored.build(labels, scores, list(map(str, range(210)))), 0.5, resamples=0)
    assert found["recall_at_1_fpr"] == 1.0
    scores[10:13] = [0.95] * 3
    assert measure(Scored.build(labels, scores, list(map(str, range(210)))), 0.5, resamples=0)["recall_at_1_fpr"] == 0


def test_unscored_responses_are_flagged_and_counted():
    data = Scored.build([True, False, False], [math.nan, math.nan, 0.1], ["a", "b", "c"])
    found = measure(data, 1.0, resamples=0)
    assert (found["recall"], found["fpr"], found["unscored"]) == (1.0, 0.5, 2)


@pytest.mark.parametrize("label", [True, False])
def test_one_class_alone_has_no_area(label):
    found = measure(Scored.build([label] * 3, [0.9, 0.8, 0.1], list("abc")), 0.5, resamples=20)
    assert (found["auroc"], found["auprc"], found["recall_at_1_fpr"]) == (None, None, None)
    assert (found["recall"] is None) is not label
    assert (found["fpr"] is None) is label


@given(ROWS, st.integers(0, 5))
def test_intervals_hold_the_figure_and_are_the_same_each_time(rows, seed):
    data = build(rows)
    first, second = (measure(data, 0.5, resamples=50, seed=seed) for _ in range(2))
    assert first == second
    for bounds in filter(None, first["ci95"].values()):
        assert 0 <= bounds[0] <= bounds[1] <= 1


def test_questions_are_drawn_with_all_their_answers():
    groups = np.array([0, 0, 0, 1, 2])
    for weights in draw_weights(groups, 30, 0):
        assert (weights[:, 0] == weights[:, 1]).all()
        assert (weights[:, 0] + weights[:, 3] + weights[:, 4] == 3).all()


def test_answers_to_one_question_make_wider_intervals():
    generator = np.random.default_rng(0)
    labels = np.arange(400) % 2 == 0
    shift = np.repeat(generator.normal(size=20), 20)
    scores = 1 / (1 + np.exp(-(shift + labels + generator.normal(size=400) * 0.3)))
    apart = measure(Scored.build(labels, scores, list(map(str, range(400)))), 0.5, resamples=300)
    together = measure(Scored.build(labels, scores, np.repeat(np.arange(20), 20).astype(str)), 0.5, resamples=300)
    width = [np.ptp(found["ci95"]["fpr"]) for found in (apart, together)]
    assert width[1] > 1.5 * width[0]


def test_weights_are_repeated_rows():
    data = build([(True, 0.75, "a"), (False, 0.5, "b"), (True, 0.25, "c"), (False, 0.1, "d")])
    repeated = build([(True, 0.75, "a")] * 2 + [(False, 0.5, "b")] + [(False, 0.1, "d")] * 3)
    weighted = compute(data, np.array([[2.0, 1.0, 0.0, 3.0]]), 0.5)
    for name, value in measure(repeated, 0.5, resamples=0).items():
        if name in METRICS:
            assert weighted[name][0] == pytest.approx(value)


def test_evasions_are_compared_on_the_same_draws():
    labels, groups = [True] * 4 + [False] * 4, list("abcdefgh")
    plain = Scored.build(labels, [0.9, 0.8, 0.7, 0.1] + [0.1] * 4, groups)
    hidden = Scored.build(labels, [0.9, 0.1, 0.1, 0.1, 0.9, 0.1, 0.1, math.nan], groups)
    found = measure_evasion(plain, hidden, 0.5, resamples=100)
    assert (found["recall"], found["recall_kept"]) == (0.25, pytest.approx(1 / 3))
    assert (found["fpr"], found["fpr_added"], found["unscored"]) == (0.5, 0.5, 1)
    assert measure_evasion(plain, plain, 0.5, resamples=100)["ci95"]["fpr_added"] == [0.0, 0.0]


def test_scikit_learn_agrees():
    sklearn = pytest.importorskip("sklearn.metrics")
    generator = np.random.default_rng(1)
    labels, scores = generator.random(200) < 0.4, generator.random(200).round(2)
    found = measure(Scored.build(labels, scores, list(map(str, range(200)))), 0.5, resamples=0)
    assert found["auroc"] == pytest.approx(sklearn.roc_auc_score(labels, scores))
    assert found["auprc"] == pytest.approx(sklearn.average_precision_score(labels, scores))
    assert found["f1"] == pytest.approx(sklearn.f1_score(labels, scores >= 0.5))
