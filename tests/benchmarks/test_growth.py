"""Exponents: fitted to known curves, and measured on models so small that they mean nothing."""

import argparse

import pytest

from benchmarks import evaluation, growth
from llava.errors import InputError


def options(*flags):
    parser = argparse.ArgumentParser()
    growth.add_arguments(parser.add_argument_group("growth"))
    evaluation.add_arguments(parser.add_argument_group("evaluation"))
    return parser.parse_args(list(flags))


def test_a_fit_by_hand():
    # Over the logarithms to base 2: (0, 0), (1, 1), (2, 1), (3, 2). Slope 3/5, mean 1 at 1.5; left over 0.2 of 2.
    law = growth.fit_power_law([1, 2, 4, 8], [1, 2, 2, 4])
    assert law.exponent == pytest.approx(0.6)
    assert law.factor == pytest.approx(2**0.1)
    assert law.r_squared == pytest.approx(0.9)


def test_costs_that_do_not_grow():
    assert growth.fit_power_law([1, 2, 4, 8], [3, 3, 3, 3]) == pytest.approx((0.0, 3.0, 1.0))


def test_exponents_of_both_sides_from_their_medians():
    seconds = iter([5.0, 100.0, 5.0] * 4)  # the median of three is 5 at every size
    row = growth.compare_growth("x", [1, 2, 4, 8], lambda size: next(seconds), lambda size: 0.5 * size**2, 3)
    assert row.ours == pytest.approx(0.0, abs=1e-12)
    assert row.baseline == pytest.approx(2.0)
    assert row.note == "sizes 1, 2, 4, 8; R² 1.000 and 1.000"
    assert row.lower_is_better


def test_streams_and_batches_are_measured_at_every_size(tiny_detector):
    sizes = ["--growth-tokens", "16", "24", "32", "48", "--growth-batches", "1", "2", "3", "4"]
    rows = list(growth.measure_detector(options("--growth-detector", str(tiny_detector), *sizes)))
    assert [row.name.split(":")[0] for row in rows] == [
        "growth with the length of a response",
        "growth with the size of a batch",
    ]
    assert all(row.baseline is not None and row.unit == "exponent" for row in rows)


@pytest.mark.slow
def test_runs_are_measured_at_every_size(tiny_llava, tiny_classifier, tiny_lm):
    models = ["--evaluation-model", str(tiny_llava), "--evaluation-detector", str(tiny_classifier)]
    models += ["--evaluation-detoxifier", str(tiny_lm), "--evaluation-new-tokens", "4"]
    row = growth.measure_runs(options("--growth-questions", "1", "2", "3", "4", *models))
    assert row.note.startswith("sizes 1, 2, 3, 4; R² ")


@pytest.mark.parametrize("flags", [["--growth-tokens", "32", "64"], ["--growth-tokens", "4", "32", "64", "128"]])
def test_too_few_and_too_small_sizes_are_refused(flags):
    with pytest.raises(InputError, match="--growth-tokens must be 4 different sizes or more, none below 16"):
        next(iter(growth.measure(options(*flags))))
