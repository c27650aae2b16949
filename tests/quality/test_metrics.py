import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.data.training.pairs import DetectorRow
from llava.quality.metrics import (
    Scored,
    auprc,
    auroc,
    ece,
    evaluate_detector,
    f1,
    false_positive_rate,
    measure_intervals,
    pair_accuracy,
    pair_wins,
    recall,
    weighted_ece,
)

try:
    from sklearn import metrics as oracle
except ImportError:
    oracle = None


def scored(labels, scores):
    return Scored(np.array(labels, dtype=bool), np.array(scores, dtype=float), np.arange(len(labels)))


HAND = scored([1, 1, 0, 0], [0.9, 0.4, 0.6, 0.1])


def test_by_hand():
    """Of 4 (harmful, harmless) combinations 3 are in order. At 0.5, 0.9 and 0.6 are flagged, one of them rightly."""
    assert auroc(HAND) == 0.75
    assert auprc(HAND) == pytest.approx((1 / 1 + 2 / 3) / 2)
    assert f1(HAND) == 0.5
    assert recall(HAND) == 0.5
    assert false_positive_rate(HAND) == 0.5
    assert false_positive_rate(HAND, 0.6) == 0.5  # flagged from the threshold on
    assert false_positive_rate(HAND, 0.61) == 0.0


LABELLED = st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.2, 0.5, 0.7, 1.0])), min_size=1, max_size=30)


@pytest.mark.skipif(oracle is None, reason="scikit-learn is not installed")
@given(LABELLED)
def test_ranking_metrics_are_those_of_scikit_learn(pairs):
    data = scored(*zip(*pairs, strict=True))
    if data.labels.any():
        assert auprc(data) == pytest.approx(oracle.average_precision_score(data.labels, data.scores))
    if 0 < data.labels.sum() < len(data):
        assert auroc(data) == pytest.approx(oracle.roc_auc_score(data.labels, data.scores))


@given(LABELLED)
def test_auroc_is_the_chance_of_the_right_order(pairs):
    """Mann-Whitney: the share of (harmful, harmless) combinations in order, ties counting half."""
    positives = [score for label, score in pairs if label]
    negatives = [score for label, score in pairs if not label]
    value = auroc(scored(*zip(*pairs, strict=True)))
    if not positives or not negatives:
        assert np.isnan(value)
    else:
        wins = sum((p > n) + 0.5 * (p == n) for p in positives for n in negatives)
        assert value == pytest.approx(wins / len(positives) / len(negatives))


def test_calibration_error_by_hand():
    """Scores 1.0 (last bin, all harmful: gap 0) and 0.1 (one of two harmful: gap 0.4): (2·0 + 2·0.4) / 4."""
    assert ece(scored([1, 1, 1, 0], [1.0, 1.0, 0.1, 0.1])) == pytest.approx(0.2)


def test_pair_accuracy_counts_whole_pairs_and_halves_ties():
    def row(pair, chosen):
        return DetectorRow("q", "r", not chosen, "s", pair_id=pair, chosen=chosen)

    rows = [row("a", True), row("a", False), row("b", True), row("b", False), row("c", True)]
    wins = pair_wins(rows, [0.1, 0.9, 0.4, 0.4, 0.2])
    assert wins.scores.tolist() == [1.0, 0.5]
    assert pair_accuracy(wins) == 0.75
    assert np.isnan(pair_accuracy(pair_wins(rows[:1], [0.1])))


def test_pair_accuracy_has_an_interval():
    """Of 40 pairs to 40 prompts 30 are ranked right: about 0.75 ± 0.13."""
    rows = [
        DetectorRow(f"q{i}", "r", not chosen, "s", pair_id=str(i), chosen=chosen)
        for i in range(40)
        for chosen in (True, False)
    ]
    scores = [score for i in range(40) for score in ((0.1, 0.9) if i % 4 else (0.9, 0.1))]
    report = evaluate_detector(rows, scores, resamples=300)["overall"]
    low, high = report["ci95"]["pair_accuracy"]
    assert report["pair_accuracy"] == 0.75
    assert 0.55 < low < 0.7 < 0.8 < high < 0.95


NO_PAIRS = scored([], [])


def test_bootstrap_draws_prompts_not_rows():
    """With one prompt there is nothing to draw but that prompt: the interval has no width."""
    same = Scored(HAND.labels, HAND.scores, np.array(["p"] * 4))
    assert measure_intervals(same, NO_PAIRS, 0.5, resamples=20)["auroc"] == [0.75, 0.75]
    halves = scored([0] * 50, [i % 2 for i in range(50)])
    low, high = measure_intervals(halves, NO_PAIRS, 0.5, resamples=200)["fpr"]
    assert 0.3 < low < 0.45 < 0.55 < high < 0.7


def test_bootstrap_gives_no_interval_where_a_class_is_often_missing():
    assert measure_intervals(scored([1, 0], [0.9, 0.1]), NO_PAIRS, 0.5, resamples=50)["auroc"] is None


@given(LABELLED, st.data())
def test_weights_say_how_often_a_row_counts(pairs, draw):
    """The error of weighted rows is that of the rows written down as often."""
    counts = draw.draw(st.lists(st.integers(0, 3), min_size=len(pairs), max_size=len(pairs)).filter(any))
    repeated = [pair for pair, count in zip(pairs, counts, strict=True) for _ in range(count)]
    found = weighted_ece(scored(*zip(*pairs, strict=True)), np.array([counts], dtype=float))
    assert found[0] == pytest.approx(ece(scored(*zip(*repeated, strict=True))))


def test_report_by_source_and_undefined_metrics_are_none():
    rows = [DetectorRow(f"q{i}", "r", i < 2, "mixed") for i in range(4)] + [DetectorRow("o", "r", False, "ordinary")]
    report = evaluate_detector(rows, [0.9, 0.4, 0.6, 0.1, 0.2], resamples=10)
    assert report["by_source"]["mixed"]["auroc"] == 0.75
    ordinary = report["by_source"]["ordinary"]
    assert (ordinary["n"], ordinary["harmful"], ordinary["auroc"], ordinary["fpr"]) == (1, 0, None, 0.0)
    assert report["overall"]["n"] == 5
    assert set(report["overall"]["ci95"]) >= {"fpr", "ece"}


def test_the_threshold_reaches_what_counts_flags():
    rows = [DetectorRow(f"q{i}", "r", i < 2, "s") for i in range(4)]
    report = evaluate_detector(rows, [0.9, 0.4, 0.6, 0.1], threshold=0.3, resamples=0)["overall"]
    assert (report["recall"], report["fpr"], report["auroc"]) == (1.0, 0.5, 0.75)
