"""`merged.json`: a folder for each scenario, whatever the scenario is called."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.eval.report.rendering import render_report
from llava.eval.run.layout import RESERVED_NAMES
from llava.eval.run.records import load_records
from llava.eval.scoring.merged import name_folders
from llava.eval.scoring.scoring import score_run
from tests.eval.build import build_record, build_run


@given(st.lists(st.text(max_size=12), unique=True, max_size=8))
def test_every_scenario_gets_a_folder_of_its_own_inside_the_run(scenarios):
    names = name_folders(scenarios)
    assert len({name.lower() for name in names}) == len(scenarios)
    for name in names:
        assert name.strip(". ") == name
        assert name
        assert "/" not in name
        assert "\\" not in name
        assert "\0" not in name
        assert name.casefold() not in RESERVED_NAMES
        assert len(name.encode()) <= 120


@pytest.mark.parametrize(
    "scenario", [*sorted(RESERVED_NAMES), "RUN.JSON", "Verdicts", "x" * 300, "é" * 300, "..", "", "/"]
)
def test_any_scenario_can_be_scored_and_leaves_the_run_whole(tmp_path, scenario):
    """Names of the run's own files, names that no file system takes, and names that are paths."""
    records = [build_record(0, scenario=scenario), build_record(1, scenario="06-Fraud")]
    run = build_run(tmp_path / "run", records)
    summary = score_run(run)
    assert list(summary["by_scenario"]) == [scenario, "06-Fraud"]
    render_report(run)
    assert load_records(run) == records
    merged = sorted(run.glob("*/merged.json"))
    assert len(merged) == 2
    assert [list(json.loads(path.read_text())) for path in merged if path.parent.name != "06-Fraud"] == [["0"]]
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    score_run(run)
    assert sorted(run.glob("*/merged.json")) == merged
