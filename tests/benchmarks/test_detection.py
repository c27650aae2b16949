"""The detection benchmark runs, on models so small that its ratios mean nothing."""

import argparse

import pytest

from benchmarks import detection
from llava.errors import InputError


def options(*flags):
    parser = argparse.ArgumentParser()
    detection.add_arguments(parser.add_argument_group("detection"))
    return parser.parse_args(
        ["--detection-repeats", "1", "--detection-threads", "1", "--detection-file-rows", "0", *flags]
    )


def test_it_measures_both_sides(tiny_detector):
    sizes = ["--detection-rows", "24", "--detection-answers", "6"]
    rows = [row.to_dict() for row in detection.measure(options("--detection-detector", str(tiny_detector), *sizes))]
    assert [row["name"] for row in rows] == [
        "detection against one by one, 6 answers a question, 1 thread",
        "detection against one by one, 1 answer a question, 1 thread",
    ]
    assert all(row["ours"] > 0 and row["baseline"] > 0 and row["goal"] == 3.0 for row in rows)


@pytest.mark.slow
def test_it_measures_two_processes(tiny_detector):
    flags = ["--detection-detector", str(tiny_detector), "--detection-file-rows", "200"]
    row = detection.measure_processes(options(*flags)).to_dict()
    assert row["name"] == "detect in two processes against one"
    assert row["ours"] > 0
    assert row["baseline"] > 0
    assert row["goal"] == 1.8


def test_questions_have_as_many_answers_as_asked():
    rows = detection.make_rows(24, 6)
    assert len({prompt for prompt, _ in rows}) == 4
    assert len({response for _, response in rows}) == 24


def test_too_few_rows_are_refused():
    with pytest.raises(InputError, match="--detection-answers is 8; give 2 to --detection-rows"):
        next(iter(detection.measure(options("--detection-rows", "4"))))
