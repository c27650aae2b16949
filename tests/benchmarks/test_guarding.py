"""The guarding benchmark runs, on models so small that its ratios mean nothing."""

import argparse

import pytest

from benchmarks import guarding
from llava.errors import InputError
from llava.protector.guard import identify_guard
from llava.protector.states.config import Cascade
from tests.tiny_states import build_state_head


def options(*flags):
    parser = argparse.ArgumentParser()
    guarding.add_arguments(parser.add_argument_group("guarding"))
    return parser.parse_args(["--guarding-repeats", "1", "--guarding-questions", "3", *flags])


def test_it_measures_all_sides(tmp_path, tiny_llava, tiny_detector):
    cascade = Cascade(str(tiny_detector), identify_guard(tiny_detector).key, 0.0, 2.0)
    head = build_state_head(tmp_path / "head", tiny_llava, cascade)
    models = ["--guarding-model", str(tiny_llava), "--guarding-head", str(head)]
    rows = [
        row.to_dict()
        for row in guarding.measure(
            options(*models, "--guarding-detector", str(tiny_detector), "--guarding-new-tokens", "5")
        )
    ]
    assert [(row["goal"], row["unit"]) for row in rows] == [
        (1 / 1.01, "questions/s"),
        (1 / 1.03, "questions/s"),
        (1 / 1.10, "questions/s"),
        (0.0, "share"),
    ]
    assert all(row["ours"] > 0 and row["baseline"] > 0 for row in rows[:3])
    assert rows[3]["ours"] == 0.0  # with these thresholds the detector reads everything


def test_more_questions_than_there_are():
    with pytest.raises(InputError, match="from 1 to 16"):
        next(iter(guarding.measure(options("--guarding-questions", "17"))))
