"""The figures of head, cascade and detector, counted by hand, and the card that shows them."""

from __future__ import annotations

import json

import pytest

from llava.data.training.pairs import DetectorRow
from llava.protector.states.finding import SHIPPED
from llava.quality.cards import render_card
from llava.quality.detector_groups import JAILJUDGE
from llava.quality.detector_rows import JAILBREAKBENCH, KeyedRow
from llava.quality.states.figures import ALL, ALL_ORDINARY, measure_stages
from llava.quality.states.rows import MEASURED, take_by_hash

NAN = float("nan")


def build_rows(*rows):
    return [
        KeyedRow(DetectorRow(f"q{i}", f"a{i}", harmful, source), f"q{i}") for i, (source, harmful) in enumerate(rows)
    ]


ROWS = build_rows(
    *[(JAILBREAKBENCH, True)] * 3, *[(JAILBREAKBENCH, False)] * 2, *[("alpaca_eval", False)] * 2, (JAILJUDGE, True)
)
STATES = [0.1, 0.5, 0.95, 0.05, 0.5, 0.3, NAN, 0.5]
DETECTED = [0.9, 0.9, 0.1, 0.1, 0.9, 0.1, 0.1, 0.1]


def measure(**changes):
    options = {"threshold": 0.4, "detector_threshold": 0.8, "cascade": (0.2, 0.9), "resamples": 0, **changes}
    return measure_stages(ROWS, STATES, DETECTED, **options)


def test_the_figures_by_hand():
    found = measure()
    mine = found[JAILBREAKBENCH]
    assert (mine["n"], mine["harmful"]) == (5, 3)
    assert mine["head"]["recall"] == pytest.approx(2 / 3)
    assert mine["head"]["fpr"] == 1 / 2
    assert mine["detector"]["recall"] == pytest.approx(2 / 3)
    # The head lets the first pass and flags the third; the detector is asked about the second and the last.
    assert mine["cascade"]["recall"] == pytest.approx(2 / 3)
    assert mine["cascade"]["fpr"] == 1 / 2
    assert mine["cascade"]["asked"] == pytest.approx(2 / 5)
    assert mine["cascade"]["auroc"] is None


def test_an_unknown_score_is_flagged_alone_and_asked_about_in_the_cascade():
    ordinary = measure()["alpaca_eval"]
    assert ordinary["head"]["fpr"] == 1 / 2
    assert ordinary["cascade"] == {"auroc": None, "recall": None, "fpr": 0.0, "asked": 1.0}


def test_the_groups():
    found = measure()
    assert list(found) == [ALL, ALL_ORDINARY, JAILBREAKBENCH, "alpaca_eval", JAILJUDGE]
    assert found[ALL]["n"] == 7  # without the one from afar
    assert found[ALL_ORDINARY]["n"] == 2


def test_rows_are_chosen_by_their_hash():
    rows = build_rows(*[("x", True)] * 20, *[("y", False)] * 3)
    taken = take_by_hash(rows, {("x", True): 5})
    assert len(taken) == 8
    assert taken == [keyed for keyed in rows if keyed in taken]
    assert set(take_by_hash(rows, {("x", True): 4})) < set(taken)
    assert all(count > 0 for count in MEASURED.values())


def test_the_card_shows_all_of_them():
    figures = {
        **{"layer": 1, "num_layers": 2, "hidden_size": 32, "pooling": "mean", "threshold": 0.4, "temperature": 1.0},
        "cascade": {
            **{"low": 0.2, "high": 0.9, "asked": 0.25, "recall": 0.5, "detector_recall": 0.5},
            **{"false_positive_rate": 0.01, "detector_false_positive_rate": 0.01},
        },
        "groups": measure(),
        "timing": [],
    }
    card = render_card("state_head", figures)
    assert "| jailbreakbench_responses | 5 (3) |" in card
    assert "one from 0.9 on is flagged" in card
    assert "Not measured" in card
    figures["cascade"]["high"] = 2.0
    figures["timing"] = [{"name": "x", "unit": "1/s", "ours": 1.0, "baseline": 2.0, "ratio": 0.5, "goal": 0.9}]
    card = render_card("state_head", figures)
    assert "the detector reads all others" in card
    assert "| x (1/s) | 1.000 | 2.000 | 0.500 | 0.900 |" in card


def test_the_shipped_card_is_that_of_its_figures():
    if not SHIPPED.is_dir():
        pytest.skip("this installation carries no state head")
    metrics = json.loads((SHIPPED / "metrics.json").read_text())
    assert (SHIPPED / "README.md").read_text() == render_card("state_head", metrics)
