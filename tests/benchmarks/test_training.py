"""The training benchmark runs, on a base so small that its ratios mean nothing."""

import argparse

import pytest

from benchmarks import training
from llava.errors import InputError


def options(base, *flags):
    parser = argparse.ArgumentParser()
    training.add_arguments(parser.add_argument_group("training"))
    return parser.parse_args(["--training-base", str(base), "--training-repeats", "1", *flags])


def test_it_measures_all_three_sides(tiny_lm):
    pytest.importorskip("trl")
    rows = [row.to_dict() for row in training.measure(options(tiny_lm, "--training-pairs", "16"))]
    assert [row["name"] for row in rows] == [
        "detector training against a two-forward loop",
        "detector training against TRL RewardTrainer",
    ]
    assert all(row["ours"] > 0 and row["baseline"] > 0 and row["unit"] == "pairs/s" for row in rows)


def test_too_few_pairs_are_refused(tiny_lm):
    with pytest.raises(InputError, match="--training-pairs is 3"):
        next(iter(training.measure(options(tiny_lm, "--training-pairs", "3"))))


def test_the_made_up_lengths_are_uneven():
    lengths = sorted(len(chosen.split()) for _, chosen, _ in training.make_pairs(400))
    assert 20 < lengths[200] < 40
    assert lengths[380] > 100
