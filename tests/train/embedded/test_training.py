"""The command of scripts/train_embedded.py: clones to calibrated adapter, by the shipped recipes, with a tiny base."""

import json

import pytest
import yaml

from llava.files import read_jsonl
from llava.protector.detector import HarmDetector
from llava.protector.detoxifier import Detoxifier
from llava.train.embedded.training import main
from tests.train.clones import build_clones


@pytest.fixture
def run(tiny_lm, tmp_path):
    """Run the command with a tiny base; what else it needs is that a tiny model has two layers and no bfloat16."""
    tiny = [
        *("--base", str(tiny_lm), "--base-name", str(tiny_lm), "--lora-layers-from", "0"),
        *("--base-dtype", "float32", "--bf16", "false", "--num-train-epochs", "1", "--disable-tqdm", "true"),
    ]

    def call(kind, data, *more):
        return main([kind, "--data", str(data), "--output", str(tmp_path / "out"), *tiny, *more])

    return call


def test_detector_from_clones(run, tmp_path, capsys):
    assert run("detector", build_clones(tmp_path / "clones")) == 0
    adapter = tmp_path / "out" / "detector"
    detector = HarmDetector.from_pretrained(adapter)
    report = json.loads((adapter / "calibration.json").read_text())
    metrics = json.loads((adapter / "metrics.json").read_text())
    assert detector.threshold == report["threshold"] == metrics["threshold"]
    assert (report["held_out"], report["data"]) == (True, ["jailbreakbench_responses", "vicuna80_responses"])
    assert report["false_positive_rate"] <= 0.05
    assert f"threshold {report['threshold']:.6f}" in capsys.readouterr().out
    values = yaml.safe_load((adapter / "train_config.yaml").read_text())
    assert (values["pooling"], values["max_windows"], values["near_duplicates"]) == ("mean_response", 1, 0)
    assert len(read_jsonl(tmp_path / "out" / "data" / "jailbreakbench_responses.jsonl")) == 60


def test_detoxifier_from_clones_then_the_same_command_again(run, tmp_path):
    pytest.importorskip("trl")
    clones = build_clones(tmp_path / "clones")
    assert run("detoxifier", clones) == 0
    adapter = tmp_path / "out" / "detoxifier"
    before = (adapter / "adapter_model.safetensors").read_bytes()
    assert len(Detoxifier.from_pretrained(adapter).rewrite(["q"], ["thorn"], max_new_tokens=4)) == 1
    assert run("detoxifier", clones) == 0
    assert (adapter / "adapter_model.safetensors").read_bytes() == before


def test_files_that_are_there_are_used(run, tmp_path, capsys):
    clones = build_clones(tmp_path / "clones", goals=4)
    assert run("detoxifier", clones, "--dry-run") == 0
    assert "jailbreakbench_rewrites: " in capsys.readouterr().out
    made = (tmp_path / "out" / "data").rename(tmp_path / "made")
    assert run("detoxifier", made, "--dry-run") == 0
    assert not (tmp_path / "out" / "data").exists()


def test_a_folder_with_neither_is_one_line(run, tmp_path, capsys):
    (tmp_path / "artifacts").mkdir()
    assert run("detector", tmp_path) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "jailbreakbench_responses.jsonl" in line
    assert "ECSO, hh-rlhf" in line
    assert not (tmp_path / "out").exists()


def test_a_bad_flag_ends_the_command(run, tmp_path, capsys):
    assert run("detector", build_clones(tmp_path / "clones", goals=4), "--lora-rank", "3") == 2
    assert "--lora-rank" in capsys.readouterr().err
    assert not (tmp_path / "out" / "detector").exists()
