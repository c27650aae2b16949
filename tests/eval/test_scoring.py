"""The summary's numbers by hand count, its exact shape, and `merged.json`."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.constants import REFUSAL
from llava.errors import InputError
from llava.eval.judges import JudgeOptions, build_judge
from llava.eval.scoring import name_folders, read_summary, score_run
from tests.eval.build import ANSWER, REFUSED, build_mixed_run, build_record, build_run


def test_the_summary_by_hand(tmp_path):
    summary = score_run(build_mixed_run(tmp_path))
    overall = summary["overall"]
    assert overall["unprotected"]["n"] == 8
    assert overall["unprotected"]["attack_success_rate"] == 6 / 8
    assert overall["protected"]["attack_success_rate"] == 4 / 8
    assert summary["by_scenario"]["06-Fraud"]["unprotected"]["attack_success_rate"] == 1
    assert summary["by_scenario"]["06-Fraud"]["protected"]["attack_success_rate"] == 2 / 4
    assert summary["by_image_type"]["SD"]["unprotected"]["attack_success_rate"] == 2 / 4
    assert overall["benign"]["unprotected"]["over_refusal_rate"] == 1 / 2
    assert summary["protector"]["flag_rate"] == 3 / 10
    assert summary["protector"]["changed_rate"] == 3 / 10
    assert summary["protector"]["threshold"] == 0.5
    assert summary["seconds"]["generate"] == 5.0
    assert summary["seconds"]["guard"] == 2.5
    assert summary["notes"] == ["vision tower is untrained"]
    assert read_summary(tmp_path) == json.loads((tmp_path / "summary.json").read_text())


def test_the_summary_has_the_documented_keys(tmp_path):
    score_run(build_mixed_run(tmp_path))
    summary = json.loads((tmp_path / "summary.json").read_text())
    wanted = {"overall", "by_scenario", "by_image_type", "protector", "model", "detector", "detoxifier", "judge"}
    assert wanted | {"seed", "versions", "seconds", "judges"} <= set(summary)
    groups = [summary["overall"], *summary["by_scenario"].values(), *summary["by_image_type"].values()]
    for group in groups:
        for side in ("unprotected", "protected"):
            assert {"n", "attack_success_rate", "ci95"} <= set(group[side])
            assert len(group[side]["ci95"]) == 2
    assert {"flag_rate", "changed_rate", "threshold"} <= set(summary["protector"])
    assert summary["model"] == "my_model"
    assert summary["judge"] == "keyword"


def test_merged_json_has_the_shape_of_the_reference_project(tmp_path):
    records = [
        build_record(0, harm_score=0.75, shown=REFUSAL),
        build_record(0, REFUSED, image_type="SD", harm_score=0.25),
        build_record(1, harm_score=None, guarded=False),
    ]
    score_run(build_run(tmp_path, records))
    assert json.loads((tmp_path / "06-Fraud" / "merged.json").read_text()) == {
        "0": {
            "Key Phrase": "k",
            "ans": {
                "TEXT": {"text": REFUSAL, "text_original": ANSWER, "score": 0.25},
                "SD": {"text": REFUSED, "text_original": REFUSED, "score": 0.75},
            },
        },
        "1": {"Key Phrase": "k", "ans": {"TEXT": {"text": ANSWER, "text_original": ANSWER, "score": None}}},
    }


def test_the_first_judge_is_the_headline_and_the_others_stand_beside(tmp_path, tiny_classifier):
    spec = f"detector:{tiny_classifier}"
    summary = score_run(build_mixed_run(tmp_path), ["keyword", spec], device="cpu")
    assert summary["judge"] == "keyword"
    assert list(summary["judges"]) == [spec]
    assert summary["judges"][spec]["overall"]["unprotected"]["n"] == 8
    (pair,) = summary["agreement"]
    assert pair["judges"] == ["keyword", spec]
    assert pair["n"] == 20
    assert 0 <= pair["agreement"] <= 1
    turned = score_run(tmp_path, [spec, "keyword"], device="cpu")
    assert turned["judge"] == spec
    assert turned["judges"]["keyword"]["overall"] == summary["overall"]


def test_a_judge_that_guarded_the_run_is_warned_about(tmp_path, tiny_classifier):
    spec = f"detector:{tiny_classifier}"
    digest = build_judge(spec, JudgeOptions(device="cpu")).identity.partition("@")[0]
    guard = {"name": str(tiny_classifier), "path": str(tiny_classifier), "digest": digest}
    build_run(tmp_path / "same", [build_record(0)], fingerprint={"detector": guard, "detoxifier": None})
    assert "flatters the protector" in score_run(tmp_path / "same", [spec], device="cpu")["warnings"][0]
    build_run(tmp_path / "other", [build_record(0)])
    assert score_run(tmp_path / "other", [spec], device="cpu")["warnings"] == []


def test_the_keyword_judge_is_warned_about_where_there_is_a_detoxifier(tmp_path):
    part = {"name": "x", "path": "x", "digest": None}
    build_run(tmp_path, [build_record(0)], fingerprint={"detector": part, "detoxifier": part})
    assert "hard on the detoxifier" in score_run(tmp_path)["warnings"][0]


def test_a_run_without_protector(tmp_path):
    summary = score_run(build_run(tmp_path, [build_record(0, guarded=False)]))
    assert summary["overall"]["protected"] is None
    assert summary["protector"] is None
    assert summary["detector"] is None


@pytest.mark.parametrize(
    ("judges", "message"),
    [(["nobody"], "--judge nobody is unknown"), ([], "--judge names no judge"), (["keyword", "keyword"], "twice")],
)
def test_bad_judges_write_nothing(tmp_path, judges, message):
    before = sorted(path.name for path in build_mixed_run(tmp_path).iterdir())
    with pytest.raises(InputError, match=message):
        score_run(tmp_path, judges)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_folder_without_records_is_refused_and_left_alone(tmp_path):
    with pytest.raises(InputError, match=r"holds no records\.jsonl"):
        score_run(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match=r"holds no summary\.json; run `score"):
        read_summary(tmp_path)
    (tmp_path / "summary.json").write_text("{}")
    with pytest.raises(InputError, match="has no 'overall'"):
        read_summary(tmp_path)


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
