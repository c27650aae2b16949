"""A whole run with a head on states: `generate --state-head`, its records, its summary, and what it is refused for."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from llava.cli.app import main
from llava.data.schema import Stage
from llava.eval.run.records import load_records
from llava.eval.scoring.scoring import score_run
from llava.protector.guard import identify_guard
from llava.protector.states.config import Cascade
from tests.tiny import build_llava
from tests.tiny_states import build_state_head


@pytest.fixture
def questions(tmp_path):
    Image.new("RGB", (40, 30), "red").save(tmp_path / "red.png")
    rows = [{"id": str(i), "prompt": f"How do I bake {'very ' * i}good bread?"} for i in range(5)]
    rows[2]["image"] = "red.png"
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def generate(capsys, model, questions, output, *more):
    code = main(
        [
            *("generate", "--model", str(model), "--benchmark", str(questions), "--output", str(output)),
            *("--device", "cpu", "--batch-size", "3", "--max-new-tokens", "6", *map(str, more)),
        ]
    )
    return code, capsys.readouterr().err


def test_a_run_with_head_and_detector(capsys, tmp_path, questions, tiny_llava, tiny_detector):
    plain = tmp_path / "plain"
    assert generate(capsys, tiny_llava, questions, plain)[0] == 0
    cascade = Cascade(str(tiny_detector), identify_guard(tiny_detector).key, 0.4, 0.6)
    head = build_state_head(tmp_path / "head", tiny_llava, cascade)
    flags = ("--state-head", head, "--detector", tiny_detector)
    code, err = generate(capsys, tiny_llava, questions, tmp_path / "run", *flags)
    assert code == 0, err
    records = load_records(tmp_path / "run")
    assert [record.response for record in records] == [record.response for record in load_records(plain)]
    for record in records:
        score = record.guard.state_score
        assert record.guard.stage is (Stage.DETECTOR if 0.4 <= score < 0.6 else Stage.STATES)
    stages = score_run(tmp_path / "run")["stages"]
    assert stages["states"] + stages["detector"] == 5
    fingerprint = json.loads((tmp_path / "run" / "run.json").read_text())["fingerprint"]
    assert fingerprint["state_head"]["name"] == str(head)
    assert score_run(plain)["stages"] is None
    # A run goes on with the head that it began with, or not at all.
    for other in (flags[2:], ("--state-head", build_state_head(tmp_path / "two", tiny_llava, threshold=0.9))):
        code, err = generate(capsys, tiny_llava, questions, tmp_path / "run", *other)
        assert code == 2
        assert "state_head" in err


def test_what_is_refused_before_anything_is_written(capsys, tmp_path, questions, tiny_llava, tiny_detector):
    head = build_state_head(tmp_path / "head", tiny_llava)
    wide = build_state_head(tmp_path / "wide", build_llava(tmp_path / "other", hidden_size=48))
    for flags, words in (
        (("--state-head", tmp_path / "nowhere"), "does not exist"),
        (("--state-head", tiny_detector), "has no state_head.json"),
        (("--state-head", wide), "(hidden_size 48) and does not fit model"),
        (("--state-head", head, "--endpoint", "http://127.0.0.1:9"), "--state-head does nothing with --endpoint"),
        (("--state-head", head, "--detoxifier", "embedded"), "--detoxifier does nothing without a detector"),
        (("--state-head", head, "--detector", tiny_detector), "has no thresholds for a cascade"),
    ):
        code, err = generate(capsys, tiny_llava, questions, tmp_path / "run", *flags)
        assert code == 2, flags
        assert words in err
        assert not (tmp_path / "run" / "records.jsonl").exists()
