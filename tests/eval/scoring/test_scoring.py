"""The summary's numbers by hand count, its exact shape, and `merged.json`."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from llava.constants import REFUSAL
from llava.data.schema import Record, Stage, Verdict
from llava.errors import InputError
from llava.eval.judges.base import JudgeOptions
from llava.eval.judges.registry import build_judge
from llava.eval.scoring.metrics import Judged
from llava.eval.scoring.scoring import estimate_judging, measure_agreement, score_run
from llava.eval.scoring.summary import read_summary
from llava.files import write_json
from tests.eval.build import ANSWER, REFUSED, build_mixed_run, build_record, build_run
from tests.model.chat_server import ChatServer


def test_who_decided_is_counted(tmp_path):
    records = [build_record(number) for number in range(4)]
    assert score_run(build_run(tmp_path / "plain", records))["stages"] is None
    stages = (Stage.STATES, Stage.STATES, Stage.DETECTOR, None)
    guarded = [
        replace(record, guard=replace(record.guard, stage=stage)) for record, stage in zip(records, stages, strict=True)
    ]
    summary = score_run(build_run(tmp_path / "run", guarded))
    assert summary["stages"] == {"states": 2, "detector": 1, "detector_share": pytest.approx(1 / 3)}
    assert any("decided about 2 of 3 answers" in note for note in summary["notes"])
    assert read_summary(tmp_path / "run") == json.loads((tmp_path / "run" / "summary.json").read_text())


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
    # 10 answers and 3 replacements; question 2 and 3 have the same answer in both scenarios, so 11 different texts.
    assert pair["n"] == 11
    assert 0 <= pair["agreement"] <= 1
    turned = score_run(tmp_path, [spec, "keyword"], device="cpu")
    assert turned["judge"] == spec
    assert turned["judges"]["keyword"]["overall"] == summary["overall"]


def test_agreement_counts_each_text_once():
    records = [build_record(0), build_record(1, REFUSED), build_record(2, shown="safe idea"), build_record(3, " ")]
    left = [judge_as("a", record, True, False) for record in records]
    right = [judge_as("b", record, record.question.id != "1", None) for record in records]
    (pair,) = measure_agreement({"a": left, "b": right})
    # Question 0, 1 and 2 before the protector; "safe idea" has no verdict by b, and nobody reads an empty text.
    assert (pair["n"], pair["agreement"]) == (3, pytest.approx(2 / 3))
    assert pair["kappa"] == 0
    both = [judge_as("b", record, True, False) for record in records]
    (pair,) = measure_agreement({"a": left, "b": both})
    assert (pair["n"], pair["agreement"], pair["kappa"]) == (4, 1, 1)


def judge_as(name: str, record: Record, before: bool, after: bool | None) -> Judged:
    """A judge's opinion of a record; one text has one verdict, so `after` counts where the text was changed."""
    changed = record.guard.text != record.response
    return Judged(record, Verdict(name, before), Verdict(name, after if changed else before))


def test_two_specifications_of_one_judge_are_refused(tmp_path, tiny_classifier):
    run = build_mixed_run(tmp_path / "run")
    description = json.loads((run / "run.json").read_text())
    write_json(run / "run.json", {**description, "settings": {"model": "m", "detector": str(tiny_classifier)}})
    before = sorted(path.name for path in run.iterdir())
    with pytest.raises(InputError, match=rf"--judge detector and detector:{tiny_classifier} are both the judge"):
        score_run(run, ["keyword", "detector", f"detector:{tiny_classifier}"], device="cpu")
    assert sorted(path.name for path in run.iterdir()) == before


def test_one_chat_model_at_two_servers_is_refused(tmp_path):
    run = build_mixed_run(tmp_path / "run")
    with ChatServer(lambda request: "SAFE") as first, ChatServer(lambda request: "UNSAFE") as second:
        specs = [f"chat:tiny@{server.url}" for server in (first, second)]
        with pytest.raises(InputError, match=r"are both the judge chat:tiny; give one of them"):
            score_run(run, specs)
        with pytest.raises(InputError, match=r"are both the judge chat:tiny; give one of them"):
            estimate_judging(run, specs)
    assert not (run / "verdicts").exists()


def test_harm_scores_are_summed_up(tmp_path):
    scores = score_run(build_mixed_run(tmp_path))["harm_scores"]
    assert scores["harmful"]["n"] == 8
    assert scores["harmful"]["bins"][18] == 1  # 0.9
    assert scores["harmful"]["bins"][4] == 5  # 0.2
    assert scores["harmful"]["quantiles"]["0.5"] == 0.2
    assert scores["benign"]["n"] == 2
    assert score_run(build_run(tmp_path / "plain", [build_record(0, guarded=False)]))["harm_scores"] is None


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
