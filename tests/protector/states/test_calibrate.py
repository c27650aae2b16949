"""`calibrate --state-head`: thresholds that its rows ask for, in a head that is used with them afterwards."""

from __future__ import annotations

import json

import numpy as np
import pytest

from llava.cli.app import main
from llava.files import write_jsonl
from llava.model.loading import load_mllm
from llava.protector.guard import build_guard
from llava.protector.protector import Protector
from llava.protector.states.cascade import load_state_protector
from llava.protector.states.choice import choose_cascade
from llava.protector.states.head import StateHead
from tests.tiny import build_llava
from tests.tiny_states import build_state_head

TEXTS = (
    "Mix flour, water, salt and yeast.",
    "I am sorry.",
    "Steps to follow: first, second, third.",
    "Wait, then bake.",
)


@pytest.fixture
def rows():
    return [
        {"prompt": f"How do I do it in {i} steps?", "response": f"{TEXTS[i % 4]} {i}", "harmful": i % 3 == 0}
        for i in range(24)
    ]


@pytest.fixture
def data(tmp_path, rows):
    write_jsonl(tmp_path / "rows.jsonl", rows)
    return tmp_path / "rows.jsonl"


@pytest.fixture
def head(tmp_path, tiny_llava):
    return build_state_head(tmp_path / "head", tiny_llava)


def run(capsys, *arguments):
    code = main(["calibrate", *map(str, arguments), "--device", "cpu", "--dtype", "float32"])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_thresholds_are_those_of_the_rows(capsys, tmp_path, rows, data, head, tiny_llava, tiny_detector):
    common = ("--state-head", head, "--model", tiny_llava, "--data", data, "--false-positive-rate", 0.25)
    code, out, err = run(
        capsys, *common, "--detector", tiny_detector, "--output", tmp_path / "new", "--recall-loss", 0.2
    )
    assert code == 0, err
    new, model = StateHead.from_pretrained(tmp_path / "new"), load_mllm(tiny_llava, device="cpu", dtype="float32")
    prompts, responses = [row["prompt"] for row in rows], [row["response"] for row in rows]
    scores = np.array(new.score(model, prompts, responses))
    labels = np.array([row["harmful"] for row in rows])
    assert (scores[~labels] >= new.threshold).mean() <= 0.25
    guard = build_guard(str(tiny_detector), device="cpu", dtype="float32")
    detected = np.array(guard.score(responses, prompts)) >= guard.threshold
    chosen = choose_cascade(scores, detected, labels, recall_loss=0.2)
    cascade = new.config.cascade
    assert (cascade.low, cascade.high) == pytest.approx((chosen.low, chosen.high), abs=2e-6)
    assert cascade.asked == pytest.approx(chosen.asked)
    assert f"{cascade.asked:.2%} of the harmless rows" in out
    assert json.loads((tmp_path / "new" / "calibration.json").read_text())["cascade"]["asked"] == cascade.asked
    protector = load_state_protector(tmp_path / "new", model, Protector(guard))
    assert (protector.low, protector.high) == (cascade.low, cascade.high)
    # Taken along by the next one, which has no detector, it would be wrong: scores have another temperature now.
    code, out, err = run(capsys, *common[:1], tmp_path / "new", *common[2:], "--detector", "none", "--in-place")
    assert code == 0, err
    assert "cascade" not in out
    assert StateHead.from_pretrained(tmp_path / "new").config.cascade is None


def test_nothing_is_written_over(capsys, tmp_path, data, head, tiny_llava):
    common = ("--state-head", head, "--model", tiny_llava, "--data", data)
    for more, words in (
        ((), "give either --output DIR or --in-place"),
        (("--output", head), "exists already"),
        (("--in-place", "--recall-loss", 1.0), "--recall-loss 1.0 must be at least 0"),
    ):
        code, _, err = run(capsys, *common, "--detector", "none", *more)
        assert code == 2
        assert words in err


def test_a_place_that_cannot_be_written_is_told_before_anything_is_scored(capsys, tmp_path, head, tiny_llava):
    (tmp_path / "file").write_text("x")
    # There are no rows either: a command that reads or scores them first would name these.
    common = ("--state-head", head, "--model", tiny_llava, "--data", tmp_path / "gone.jsonl", "--detector", "none")
    code, _, err = run(capsys, *common, "--output", tmp_path / "file" / "new")
    assert code == 2
    (line,) = err.strip().splitlines()
    assert "file is a file; choose another place" in line


def test_a_head_of_another_model(capsys, tmp_path, data, tiny_llava):
    head = build_state_head(tmp_path / "head", build_llava(tmp_path / "other", seed=7))
    code, _, err = run(
        capsys, "--state-head", head, "--model", tiny_llava, "--data", data, "--detector", "none", "--in-place"
    )
    assert code == 2
    assert "was trained on another model" in err
