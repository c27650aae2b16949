"""The detoxifier's training benchmark runs, on a base so small that its ratio means nothing."""

import argparse

import pytest

from benchmarks import rewriting
from llava.errors import InputError


def options(base, *flags):
    parser = argparse.ArgumentParser()
    rewriting.add_arguments(parser.add_argument_group("rewriting"))
    return parser.parse_args(["--rewriting-base", str(base), "--rewriting-repeats", "1", *flags])


def test_it_measures_both_sides(tiny_lm):
    (row,) = [row.to_dict() for row in rewriting.measure(options(tiny_lm, "--rewriting-rows", "16"))]
    assert row["name"] == "detoxifier training against TRL SFTTrainer"
    assert row["unit"] == "rows/s"
    assert row["ours"] > 0
    assert row["baseline"] > 0


def test_too_few_rows_are_refused(tiny_lm):
    with pytest.raises(InputError, match="--rewriting-rows is 3"):
        next(iter(rewriting.measure(options(tiny_lm, "--rewriting-rows", "3"))))
