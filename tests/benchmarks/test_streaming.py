"""The streaming benchmark runs, on models so small that its ratios mean nothing."""

import argparse

import pytest

from benchmarks import streaming
from llava.errors import InputError


def options(*flags):
    parser = argparse.ArgumentParser()
    streaming.add_arguments(parser.add_argument_group("streaming"))
    return parser.parse_args(["--streaming-repeats", "1", "--streaming-answers", "2", *flags])


def test_it_measures_all_sides(tiny_detector, tiny_lm):
    models = ["--streaming-detector", str(tiny_detector), "--streaming-base", str(tiny_lm)]
    sizes = ["--streaming-tokens", "100", "--streaming-new-tokens", "60"]
    rows = [row.to_dict() for row in streaming.measure(options(*models, *sizes))]
    assert [row["name"] for row in rows] == [
        "guarded stream against one pass, one window",
        "guarded stream against one pass, the detector's own windows",
        "guarded stream against re-scoring at every token",
        "throughput of guarded harmless answers",
        "first text of a guarded answer, median",
        "first text of a guarded answer, 99%",
        "last text of a guarded answer, median",
        "last text of a guarded answer, 99%",
    ]
    assert all(row["ours"] > 0 and row["baseline"] > 0 for row in rows)
    assert [row["goal"] for row in rows] == [1 / 1.3, 1 / 1.3, 10.0, 0.85, 0, 0, 0, 0]


def test_too_short_streams_are_refused():
    with pytest.raises(InputError, match="must be at least 16"):
        next(iter(streaming.measure(options("--streaming-tokens", "4"))))
