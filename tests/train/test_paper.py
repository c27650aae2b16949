"""`--paper`: what the training shells do without arguments."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from llava.errors import InputError
from llava.train import detoxifier, harm_detector
from llava.train.paper import apply_paper, build_flags, read_flag
from tests.train.ranks import find_free_port
from tests.train.samples import write_labelled, write_rewrites

ROOT = Path(__file__).resolve().parents[2]
CASES = [
    (harm_detector, "detector", "openlm-research/open_llama_3b_v2", "train_harm_detector.sh"),
    (detoxifier, "detoxifier", "lmsys/vicuna-7b-v1.5", "train_detoxifier.sh"),
]
SHORT = ("--max-steps", "1", "--disable-tqdm", "true", "--logging-steps", "1", "--use-cpu", "true")


def test_other_arguments_come_back_as_they_are():
    argv = ["--train-data", "rows.jsonl", "--output-dir", "out"]
    assert apply_paper("detector", argv) is argv


@pytest.mark.parametrize(("module", "kind", "base", "shell"), CASES)
def test_where_the_hub_is_not_there_one_line_says_what_is_wanted(
    module, kind, base, shell, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert module.main(["--paper"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert len(line) <= 500
    for word in ("PKU-Alignment/PKU-SafeRLHF", base, "--train-data", "--base", shell):
        assert word in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("shell", [case[-1] for case in CASES])
def test_the_bare_shell_takes_the_papers_recipe(shell, tmp_path):
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", str(ROOT / "scripts" / shell)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "PKU-Alignment/PKU-SafeRLHF" in line
    assert list(tmp_path.iterdir()) == []


def test_the_recipe_stands_behind_the_users_flags():
    flags = build_flags("detector", ["--learning-rate", "1", "--use-cpu", "true"])
    assert Path(flags[1]).name == "paper_detector.yaml"
    assert flags[2:] == [
        *("--output-dir", "runs/paper_detector", "--resume", "--learning-rate", "1", "--use-cpu", "true")
    ]


def test_two_recipes_are_refused():
    with pytest.raises(InputError, match="--config"):
        build_flags("detector", ["--config", "mine.yaml"])


def test_own_rows_are_evaluated_on_their_test_file_or_split_by_prompt(tmp_path):
    rows = write_labelled(tmp_path / "rows.jsonl")
    folder = tmp_path / "copy"
    folder.mkdir()
    (folder / "train.jsonl").write_bytes(rows.read_bytes())
    assert read_flag(build_flags("detector", ["--train-data", str(folder)]), "--eval-data") == ""
    (folder / "test.jsonl").write_bytes(rows.read_bytes())
    assert read_flag(build_flags("detector", ["--train-data", str(folder)]), "--eval-data") == str(folder)
    given = ["--train-data", str(rows), "--eval-data", "other.jsonl"]
    assert read_flag(build_flags("detector", given), "--eval-data") == "other.jsonl"


@pytest.mark.parametrize(("module", "kind", "_base", "_shell"), CASES)
def test_local_copies_are_trained_on_by_the_recipe(module, kind, _base, _shell, tiny_lm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = (write_labelled if kind == "detector" else write_rewrites)(tmp_path / "rows.jsonl")
    assert module.main(["--paper", "--train-data", str(rows), "--base", str(tiny_lm), *SHORT]) == 0
    output = tmp_path / "runs" / f"paper_{kind}"
    used = yaml.safe_load((output / "train_config.yaml").read_text())
    assert (used["lora_r"], used["learning_rate"]) == (32 if kind == "detector" else 128, 2e-5)
    assert json.loads((output / "adapter_config.json").read_text())["lora_alpha"] == 32
    # Run again, it goes on from its end instead of being refused.
    assert module.main(["--paper", "--train-data", str(rows), "--base", str(tiny_lm), *SHORT]) == 0


@pytest.mark.slow
def test_deepspeed_takes_over(tiny_lm, tmp_path):
    pytest.importorskip("deepspeed")
    rows = write_labelled(tmp_path / "rows.jsonl")
    zero = ("--deepspeed", str(ROOT / "scripts" / "zero2.json"))
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "DS_ACCELERATOR": "cpu",
        "MASTER_PORT": find_free_port(),
        "CUDA_VISIBLE_DEVICES": "",
    }
    done = subprocess.run(
        [
            *("bash", str(ROOT / "scripts" / "train_harm_detector.sh"), "--paper", "--train-data", str(rows)),
            *("--base", str(tiny_lm), *SHORT, *zero),
        ],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "starting DeepSpeed" in done.stderr
    assert (tmp_path / "runs" / "paper_detector" / "adapter_model.safetensors").is_file()
