"""What `summary.json` may hold, and where its verdict files may lie."""

from __future__ import annotations

import json

import pytest

from llava.errors import InputError
from llava.eval.report.comparison import compare_runs
from llava.eval.report.rendering import render_report
from llava.eval.scoring.scoring import score_run
from llava.eval.scoring.summary import read_summary
from llava.files import write_json
from tests.eval.build import build_mixed_run, build_record, build_run


@pytest.fixture
def run(tmp_path):
    score_run(build_mixed_run(tmp_path / "run"))
    return tmp_path / "run"


def change(run, place, value) -> None:
    summary = json.loads((run / "summary.json").read_text())
    holder = summary
    for name in place[:-1]:
        holder = holder[name]
    holder[place[-1]] = value
    write_json(run / "summary.json", summary)


def test_what_score_writes_passes_as_it_stands(run, tmp_path):
    assert read_summary(run) == json.loads((run / "summary.json").read_text())
    plain = build_run(tmp_path / "plain", [build_record(0, guarded=False)])
    assert score_run(plain) == read_summary(plain)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("overall",), [], "'overall' is a list, not an object"),
        (("overall", "unprotected"), None, "'unprotected' is null, not an object"),
        (("overall", "unprotected", "n"), "8", "'n' is '8', not a whole number of at least 0"),
        (("overall", "unprotected", "attack_success_rate"), 1.5, "is 1.5, not a number from 0 to 1"),
        (("overall", "unprotected", "attack_success_rate"), None, "exactly when 'ci95' is"),
        (("overall", "unprotected", "ci95"), [0.5], "'ci95' is a list, not null or two ascending numbers"),
        (("overall", "protected", "ci95"), [0.5, 0.1], "not null or two ascending numbers"),
        (("overall", "protected", "ci95"), ["a", "b"], "'ci95': '1' is 'a', not a number from 0 to 1"),
        (("overall", "mcnemar_p"), float("nan"), "'mcnemar_p' is nan, not a number from 0 to 1"),
        (("overall", "benign", "changed"), -1, "'changed' is -1"),
        (("by_scenario", "06-Fraud"), 1, "'06-Fraud' is 1, not an object"),
        (("by_scenario_and_image_type", "else"), {}, "not a scenario of 'by_scenario'"),
        (("records",), 0, "'records' is 0, not a whole number of at least 1"),
        (("model",), {}, "'model' is an object, not a text"),
        (("seconds", "wall"), None, "'wall' is null"),
        (("notes",), "x", "'notes' is 'x', not a list of texts"),
        (("settings", "limit"), 3, "'limit' is 3, not a text"),
        (("harm_scores", "harmful", "bins"), [1], "as many bins"),
        (("harm_scores", "harmful", "quantiles"), {"x": 0.5}, "not under a level"),
        (("protector", "threshold"), True, "'threshold' is true"),
        (("judge",), "nobody", "has no 'nobody'"),
        (("agreement",), [1], "'agreement' 1 is 1, not an object"),
    ],
)
def test_another_type_is_named_with_its_place(run, place, value, message):
    change(run, place, value)
    before = sorted(run.rglob("*"))
    for read in (read_summary, render_report, lambda folder: compare_runs([folder, folder])):
        with pytest.raises(InputError) as caught:
            read(run)
        assert str(caught.value).startswith(f"summary {run / 'summary.json'}")
        assert message in str(caught.value)
        assert f"run `score {run}` again" in str(caught.value)
    assert sorted(run.rglob("*")) == before


@pytest.mark.parametrize("name", ["pairs", "benign", "protector", "mcnemar_p"])
def test_a_summary_of_another_version_is_refused(run, name):
    summary = json.loads((run / "summary.json").read_text())
    del summary["overall"][name]
    write_json(run / "summary.json", summary)
    with pytest.raises(InputError, match=f"has no '{name}'"):
        render_report(run)


@pytest.mark.parametrize(
    "path", ["../victim.jsonl", "/etc/hosts", "verdicts/../../victim.jsonl", "victim.jsonl", "verdicts/", "verdicts/.."]
)
def test_no_file_outside_the_verdicts_is_read_or_mended(run, tmp_path, path):
    victim = tmp_path / "victim.jsonl"
    victim.write_text('{"a": 1}\n{"torn": ')
    change(run, ("verdict_files", "keyword"), path.replace("/etc", str(tmp_path)))
    for read in (render_report, lambda folder: compare_runs([folder, folder])):
        with pytest.raises(InputError, match="not a file in verdicts/"):
            read(run)
    assert victim.read_text() == '{"a": 1}\n{"torn": '
