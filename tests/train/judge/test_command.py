"""The commands that make the shipped judge and its card."""

from __future__ import annotations

import json
import shutil

import pytest
from safetensors.torch import load_file

from llava.eval.judges.answers import FOLDER, SETTINGS, WEIGHTS, AnswerJudge
from llava.quality.commands.evaluate_judge import main as evaluate
from llava.train.judge.command import main as train


@pytest.mark.slow
def test_the_shipped_weights_are_made_again(shared_data, tmp_path):
    assert train(["--data", str(shared_data), "--output", str(tmp_path)]) == 0
    found, shipped = (json.loads((folder / SETTINGS).read_text()) for folder in (tmp_path, FOLDER))
    assert found["trained_on"] == shipped["trained_on"]
    assert found["threshold"] == pytest.approx(shipped["threshold"], abs=0.02)
    weights, kept = load_file(tmp_path / WEIGHTS), load_file(FOLDER / WEIGHTS)
    for name, tensor in kept.items():
        assert (weights[name].float() - tensor.float()).abs().max() < 0.05, name
    assert AnswerJudge.from_folder(tmp_path).threshold == found["threshold"]


@pytest.mark.slow
def test_the_card_is_written_beside_the_weights(shared_data, tmp_path):
    for name in (WEIGHTS, SETTINGS):
        shutil.copy(FOLDER / name, tmp_path / name)
    assert evaluate(["--data", str(shared_data), "--judge", str(tmp_path)]) == 0
    assert (tmp_path / "README.md").read_text() == (FOLDER / "README.md").read_text()


def test_missing_data_is_one_line(tmp_path, capsys):
    assert train(["--data", str(tmp_path / "none"), "--output", str(tmp_path / "out")]) != 0
    assert "none" in capsys.readouterr().err
    assert not (tmp_path / "out" / WEIGHTS).exists()
