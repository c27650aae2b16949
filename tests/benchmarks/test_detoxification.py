"""The rewriting benchmark runs, on a model so small that its ratio means nothing."""

import argparse

import pytest

from benchmarks import detoxification
from llava.errors import InputError


def options(*flags):
    parser = argparse.ArgumentParser()
    detoxification.add_arguments(parser.add_argument_group("detoxification"))
    return parser.parse_args(list(flags))


def test_it_measures_both_sides(tiny_lm):
    flags = ["--detoxification-model", str(tiny_lm), "--detoxification-answers", "4"]
    flags += ["--detoxification-new-tokens", "6", "--detoxification-repeats", "1"]
    (row,) = detoxification.measure(options(*flags))
    assert row.unit == "rewrites/s"
    assert row.ours > 0
    assert row.baseline > 0


def test_sizes_of_nothing_are_refused():
    with pytest.raises(InputError, match="must be at least 1"):
        next(iter(detoxification.measure(options("--detoxification-answers", "0"))))
