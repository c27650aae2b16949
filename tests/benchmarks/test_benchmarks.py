"""The benchmarks: medians of alternating sides, and a whole small measurement through the command."""

from __future__ import annotations

import json

import pytest

from benchmarks.__main__ import main
from benchmarks.measurement import Measurement, compare

KEYS = ["name", "ours", "baseline", "ratio", "goal", "holds", "unit", "repeats"]


def test_sides_take_turns_and_medians_count():
    order = []
    ours, baseline = iter([9.0, 1.0, 10.0]), iter([2.0, 100.0, 1.0])
    measurement = compare(
        "speed",
        lambda repeat: order.append(("ours", repeat)) or next(ours),
        lambda repeat: order.append(("baseline", repeat)) or next(baseline),
        goal=5.0,
        unit="x/s",
        repeats=3,
    )
    assert [side for side, _ in order] == ["ours", "baseline", "baseline", "ours", "ours", "baseline"]
    assert (measurement.ours, measurement.baseline, measurement.ratio) == (9.0, 2.0, 4.5)
    assert list(measurement.to_dict()) == KEYS
    assert measurement.to_dict()["holds"] is False


def test_a_goal_that_is_just_reached_holds():
    assert Measurement("speed", 10.0, 2.0, 5.0, "x/s", 1).to_dict()["holds"] is True


@pytest.mark.slow
def test_the_evaluation_benchmark_measures_both_sides(tiny_llava, tiny_classifier, tiny_lm, tmp_path, capsys):
    path = tmp_path / "ratios.json"
    models = ["--evaluation-model", str(tiny_llava), "--evaluation-detector", str(tiny_classifier)]
    models += ["--evaluation-detoxifier", str(tiny_lm)]
    size = ["--evaluation-questions", "16", "--evaluation-repeats", "1", "--evaluation-new-tokens", "8"]
    assert main(["--output", str(path), "--only", "evaluation", *models, *size]) == 0
    (row,) = json.loads(path.read_text())
    assert list(row) == KEYS
    assert row["name"] == "evaluation throughput"
    assert row["unit"] == "questions/s"
    assert row["ours"] > 0
    assert row["ratio"] == pytest.approx(row["ours"] / row["baseline"])
    assert "evaluation throughput: " in capsys.readouterr().out


def test_input_that_cannot_be_used_is_one_line_and_writes_nothing(tmp_path, capsys):
    path = tmp_path / "ratios.json"
    assert main(["--output", str(path), "--only", "evaluation", "--evaluation-model", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert not path.exists()
