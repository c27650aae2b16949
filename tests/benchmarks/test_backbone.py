"""The backbone benchmark runs, on models so small that its ratios mean nothing."""

import argparse

import pytest

from benchmarks import backbone
from llava.errors import FailedRunError


def read(*flags):
    parser = argparse.ArgumentParser()
    backbone.add_arguments(parser.add_argument_group("backbone"))
    return parser.parse_args(
        ["--backbone-repeats", "1", "--backbone-texts", "3", "--backbone-dtype", "float32", *flags]
    )


@pytest.fixture
def models(tiny_whole, tiny_detector, tiny_detoxifier):
    names = ["--backbone-model", str(tiny_whole), "--backbone-detector", str(tiny_detector)]
    return [*names, "--backbone-detoxifier", str(tiny_detoxifier)]


def test_it_measures_the_pace(models):
    rows = [row.to_dict() for row in backbone.measure_pace(read(*models))]
    assert [row["name"] for row in rows] == [
        "scoring with the adapter beside shared weights, not merged",
        "rewriting with the adapter beside shared weights, not merged",
    ]
    assert all(row["ours"] > 0 and row["baseline"] > 0 for row in rows)


@pytest.mark.slow
def test_it_measures_whole_processes(models, capfd):
    rows = [row.to_dict() for row in backbone.measure_processes(read(*models))]
    assert [row["goal"] for row in rows] == [1 / 1.10, 1.5, 1 / 1.5]
    assert all(row["ours"] > 0 and row["baseline"] > 0 for row in rows)
    assert rows[0]["ours"] == rows[1]["ours"]  # one process for both
    capfd.readouterr()
    with pytest.raises(FailedRunError, match="'shared' ended with status"):
        backbone.run_process(read("--backbone-model", "/nowhere"), "shared")
