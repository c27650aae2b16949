import importlib.util
import json
import math
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from llava.protector.detoxifier import Detoxifier
from llava.train import detoxifier, detoxifier_trainer
from llava.train.detoxifier import main
from tests.train.samples import write_rewrites

FILES = {
    "adapter_config.json",
    "adapter_model.safetensors",
    "metrics.json",
    "protector_config.json",
    "train_config.yaml",
}
if importlib.util.find_spec("tensorboard"):
    FILES |= {"runs"}


def flags(tiny_lm, tmp_path, *more):
    return [
        *("--base", str(tiny_lm), "--train-data", str(write_rewrites(tmp_path / "rewrites.jsonl"))),
        *("--output-dir", str(tmp_path / "out"), "--max-length", "192", "--max-target-tokens", "40"),
        *("--learning-rate", "1e-2", "--num-train-epochs", "2", "--disable-tqdm", "true", "--save-strategy", "no"),
        *more,
    ]


def test_smoke(tiny_lm, tmp_path, monkeypatch):
    built = []
    original = detoxifier_trainer.build_trainer

    def build(*args, **kwargs):
        trainer = original(*args, **kwargs)
        built.append((trainer, {name: p.detach().clone() for name, p in trainer.model.named_parameters()}))
        return trainer

    monkeypatch.setattr(detoxifier_trainer, "build_trainer", build)
    assert main(flags(tiny_lm, tmp_path, "--logging-steps", "1", "--eval-strategy", "epoch")) == 0
    ((trainer, before),) = built
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert all(map(math.isfinite, losses))
    assert losses[-1] < losses[0]
    for name, parameter in trainer.model.named_parameters():
        assert torch.equal(parameter, before[name]) is (not parameter.requires_grad), name
        assert parameter.requires_grad is ("lora_" in name)
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["perplexity"] == pytest.approx(math.exp(metrics["token_loss"]))
    evaluations = [entry["eval_token_loss"] for entry in trainer.state.log_history if "eval_token_loss" in entry]
    assert len(evaluations) == 2
    assert evaluations[-1] == pytest.approx(metrics["token_loss"], rel=1e-5)


def test_the_trained_detoxifier_writes_its_targets_and_stops(tiny_lm, tmp_path):
    """Overfit on one target: the code of inference writes it and ends at eos."""
    path = tmp_path / "one.jsonl"
    row = {"prompt": "q", "harmful_response": "thorn", "harmless_response": "water and bread"}
    path.write_text("".join(json.dumps({**row, "prompt": f"q{i}"}) + "\n" for i in range(8)))
    more = ["--train-data", str(path), "--num-train-epochs", "80", "--lora-r", "8", "--held-out-fraction", "0"]
    assert main(flags(tiny_lm, tmp_path, *more)) == 0
    assert Detoxifier.from_pretrained(tmp_path / "out").rewrite(["q1"], ["thorn"], max_new_tokens=40) == [
        "water and bread"
    ]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--max-target-tokens", "200"], "--max-target-tokens is 200"),
        (["--text-form", "answer"], "text_form"),
        (["--eval-data", "absent.jsonl"], "absent.jsonl does not exist"),
    ],
)
def test_bad_input_is_one_line(tiny_lm, tmp_path, capsys, more, message):
    assert main(flags(tiny_lm, tmp_path, *more)) == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_without_trl_one_line_says_what_to_install(tiny_lm, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(detoxifier, "find_spec", lambda name: None)
    assert main(flags(tiny_lm, tmp_path)) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: training a detoxifier needs TRL; install it: pip install")
    assert not (tmp_path / "out").exists()


def test_help_does_not_import_trl():
    code = "import sys; from llava.train.detoxifier import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += "assert not any(name.partition('.')[0] in ('trl', 'datasets') for name in sys.modules), 'imported'"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_harmless_rows_are_kept_as_they_are(tiny_lm, tmp_path, capsys):
    """A harmless response without a partner is skipped, unless it shall be its own target."""
    path = tmp_path / "mixed.jsonl"
    rows = [{"prompt": f"q{i}", "response": f"water {i}", "harmful": False} for i in range(6)]
    rows += [{"prompt": f"h{i}", "harmful_response": "thorn", "harmless_response": "bread"} for i in range(6)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    more = ["--train-data", str(path), "--held-out-fraction", "0", "--dry-run"]
    assert main(flags(tiny_lm, tmp_path, *more)) == 0
    assert "training: 6 rows" in capsys.readouterr().out
    assert main(flags(tiny_lm, tmp_path, *more, "--keep-harmless")) == 0
    assert "training: 12 rows" in capsys.readouterr().out


def test_what_was_cut_is_logged(tiny_lm, tmp_path, caplog):
    path = tmp_path / "long.jsonl"
    row = {"harmful_response": "thorn " * 400, "harmless_response": "water " * 100}
    path.write_text("".join(json.dumps({"prompt": f"q{i}", **row}) + "\n" for i in range(8)))
    more = ["--train-data", str(path), "--held-out-fraction", "0", "--max-steps", "1"]
    with caplog.at_level("INFO", logger="llava.train.detoxifier"):
        assert main(flags(tiny_lm, tmp_path, *more)) == 0
    assert "8 rows: the response is cut in 8, the target in 8" in caplog.text


@pytest.mark.slow
def test_an_interrupted_run_ends_at_the_weights_of_an_unbroken_one(tiny_lm, tmp_path):
    """Its last checkpoints are lost, as after a kill; --resume goes on from the first one."""
    saving = ["--save-strategy", "steps", "--save-steps", "2", "--save-total-limit", "9", "--lora-dropout", "0.2"]
    assert main(flags(tiny_lm, tmp_path, *saving, "--num-train-epochs", "3")) == 0
    whole = tmp_path / "out"
    broken = tmp_path / "broken"
    shutil.copytree(whole / "checkpoint-2", broken / "checkpoint-2")
    more = ["--num-train-epochs", "3", "--output-dir", str(broken), "--resume"]
    assert main(flags(tiny_lm, tmp_path, *saving, *more)) == 0
    expected, found = (load_file(folder / "adapter_model.safetensors") for folder in (whole, broken))
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-7)
    assert (broken / "metrics.json").read_text() == (whole / "metrics.json").read_text()


def test_dry_run_writes_nothing(tiny_lm, tmp_path, capsys):
    assert main(flags(tiny_lm, tmp_path, "--dry-run")) == 0
    assert "target tokens" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
