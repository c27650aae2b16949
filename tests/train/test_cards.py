import json

import numpy as np
import pytest

from llava import Detoxifier, HarmDetector
from llava.model.embedded import ASSETS
from llava.train import cards

CARD_TOLERANCE = 0.002
"""Another CPU rounds differently; one swapped pair of rows moves the AUROC by 0.00004."""


def metrics_of(kind):
    return json.loads((ASSETS / kind / "metrics.json").read_text())


@pytest.mark.parametrize("kind", ["detector", "detoxifier"])
def test_shipped_card_says_what_was_measured(kind):
    assert (ASSETS / kind / "README.md").read_text() == cards.render_card(kind, metrics_of(kind))


@pytest.mark.parametrize("kind", ["detector", "detoxifier"])
def test_shipped_adapter_is_small_and_safe_to_load(kind):
    files = {path.name: path.stat().st_size for path in (ASSETS / kind).iterdir()}
    assert set(files) == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "metrics.json",
        "protector_config.json",
    }
    assert files["adapter_model.safetensors"] < 8_000_000


def test_shipped_figures_are_good_enough():
    detector, detoxifier = metrics_of("detector"), metrics_of("detoxifier")
    assert detector["all"]["auroc"] >= 0.95
    assert detoxifier["judged_harmless"] >= 0.9


def test_no_prompt_is_on_both_sides(shared_data):
    for load in (cards.load_detector_split, cards.load_detoxifier_split):
        train, held_out = load(shared_data)
        assert not {row.prompt for row in train} & {row.prompt for row in held_out}
        assert len(held_out) > 50


def test_detectors_and_detoxifiers_data_are_split_alike(shared_data):
    train, _ = cards.load_detector_split(shared_data)
    _, held_out = cards.load_detoxifier_split(shared_data)
    assert not {row.prompt for row in train} & {row.prompt for row in held_out}


@pytest.mark.slow
def test_figures_of_the_detector_card_are_measured_again(shared_data):
    _, held_out = cards.load_detector_split(shared_data)
    rows = [row for row in held_out if row.source != cards.PAIRS]
    measured = cards.measure_detector(HarmDetector.from_pretrained("embedded", dtype="float32"), rows, resamples=0)
    card = metrics_of("detector")
    for part in ("all", "jailbreakbench"):
        assert measured[part]["auroc"] == pytest.approx(card[part]["auroc"], abs=CARD_TOLERANCE)
        assert measured[part]["n"] == card[part]["n"]
    assert measured["ordinary"]["fpr"] == pytest.approx(card["ordinary"]["fpr"], abs=0.02)
    assert measured["all"]["auroc"] >= 0.95


def test_measuring_with_tiny_models(tiny_detector, tiny_detoxifier):
    rows = [
        cards.DetectorRow(f"Question {i}?", f"Answer {i} {'harm' if i % 2 else 'fine'} word.", bool(i % 2), source)
        for i, source in enumerate([cards.RESPONSES] * 8 + [cards.ORDINARY] * 4)
    ]
    pair = [
        cards.DetectorRow("Why?", text, not chosen, cards.PAIRS, pair_id="p", chosen=chosen)
        for text, chosen in (("No.", True), ("Yes, do harm.", False))
    ]
    detector = HarmDetector.from_pretrained(tiny_detector)
    figures = cards.measure_detector(detector, rows + pair, resamples=20)
    assert figures["all"]["n"] == 12
    assert figures["preferences"]["pairs"] == 1
    assert 0 <= figures["all"]["auroc"] <= 1
    judge = cards.fit_word_judge(rows)
    assert judge.predict(["Answer harm word.", "Answer fine word."]).tolist() == [True, False]
    harmful = [cards.DetoxifierRow("Why?", "Answer harm word.", "No.", "s")] * 2
    outcome = cards.measure_detoxifier(
        Detoxifier.from_pretrained(tiny_detoxifier), harmful, judge, detector, max_new_tokens=6
    )
    assert outcome["n"] == 2
    assert outcome["originals_judged_harmful"] == 1.0
    assert all(np.isfinite(value) for value in outcome.values() if isinstance(value, float))
