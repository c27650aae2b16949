import importlib.util
import json

import pytest
import torch
from safetensors.torch import load_file

from llava.protector.detector import HarmDetector
from llava.train import harm_detector
from llava.train.harm_detector import main
from tests.train.samples import SINGLE_PRECISION, write_labelled, write_pairs

FILES = {
    "adapter_config.json",
    "adapter_model.safetensors",
    "held_out_scores.jsonl",
    "metrics.json",
    "protector_config.json",
    "train_config.yaml",
}
if importlib.util.find_spec("matplotlib"):
    FILES |= {"calibration.png", "roc.png"}
if importlib.util.find_spec("tensorboard"):
    FILES |= {"runs"}


@pytest.fixture
def data(tmp_path):
    pairs = write_pairs(tmp_path / "pairs.jsonl")
    return f"{write_labelled(tmp_path / 'labelled.jsonl')},{pairs}:0.5"


def flags(tiny_lm, data, output, *more):
    return [
        *("--base", str(tiny_lm), "--train-data", data, "--output-dir", str(output), "--max-length", "64"),
        *("--learning-rate", "1e-2", "--num-train-epochs", "1", "--disable-tqdm", "true", "--save-strategy", "no"),
        *more,
    ]


@pytest.fixture
def trainers(monkeypatch):
    """Every trainer built, with a copy of its parameters from before training."""
    built = []
    original = harm_detector.build_trainer

    def build(*args, **kwargs):
        trainer = original(*args, **kwargs)
        built.append((trainer, {name: p.detach().clone() for name, p in trainer.model.named_parameters()}))
        return trainer

    monkeypatch.setattr(harm_detector, "build_trainer", build)
    return built


@pytest.mark.parametrize("loss", ["bce", "bce+pairwise"])
def test_smoke(tiny_lm, data, tmp_path, trainers, loss):
    """Finite falling loss, every trainable parameter moved, frozen ones did not, exact files."""
    output = tmp_path / "out"
    assert main(flags(tiny_lm, data, output, "--loss", loss, "--logging-steps", "1", "--num-train-epochs", "3")) == 0
    ((trainer, before),) = trainers
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert all(map(torch.isfinite, torch.tensor(losses)))
    assert sum(losses[-4:]) < sum(losses[:4])
    after = dict(trainer.model.named_parameters())
    trainable = {name for name, parameter in after.items() if parameter.requires_grad}
    assert any("lora_A" in name for name in trainable)
    assert any("score.modules_to_save" in name for name in trainable)
    for name, parameter in after.items():
        assert torch.equal(parameter, before[name]) is (name not in trainable), name
    assert {path.name for path in output.iterdir()} == FILES


def test_the_adapter_holds_the_head_under_the_name_of_the_released_ones(tiny_lm, data, tmp_path):
    output = tmp_path / "out"
    assert main(flags(tiny_lm, data, output, "--base-name", "owner/base", "--lora-layers-from", "1")) == 0
    keys = load_file(output / "adapter_model.safetensors").keys()
    assert "base_model.model.score.weight" in keys
    assert "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight" in keys
    assert not any(".layers.0." in key for key in keys)
    adapter = json.loads((output / "adapter_config.json").read_text())
    assert (adapter["task_type"], adapter["base_model_name_or_path"]) == ("SEQ_CLS", "owner/base")
    config = json.loads((output / "protector_config.json").read_text())
    assert (config["kind"], config["base_model"], config["positive_label"]) == ("detector", "owner/base", "harmful")


@pytest.mark.parametrize("positive_label", ["harmful", "safe"])
def test_the_trained_detector_tells_the_classes_apart(tiny_lm, data, tmp_path, positive_label):
    """Learned by the training code, scored by the code of inference; high is harmful either way."""
    output = tmp_path / "out"
    # Gentler than the smoke tests: at their rate the last bits of a product decide where the training ends up.
    more = ["--num-train-epochs", "20", "--learning-rate", "3e-3"]
    more += ["--positive-label", positive_label, "--pooling", "last"]
    assert main(flags(tiny_lm, data, output, *more)) == 0
    detector = HarmDetector.from_pretrained(output)
    harmful, harmless = detector.score(["water bread thorn", "water bread bloom"], ["question 1", "question 1"])
    assert harmful > 0.7 > 0.3 > harmless
    assert json.loads((output / "metrics.json").read_text())["by_source"]["labelled"]["auroc"] > 0.9


def test_the_written_metrics_are_those_of_the_written_detector(tiny_lm, data, tmp_path):
    """Held-out scores computed while training equal what the saved adapter gives, and the split can be found again."""
    from llava.data.training.pairs import load_detector_rows
    from llava.data.training.sources import parse_mixture
    from llava.data.training.splits import split_rows

    output = tmp_path / "out"
    assert main(flags(tiny_lm, data, output, "--num-layers", "1", "--pooling", "mean", *SINGLE_PRECISION)) == 0
    _, held_out = split_rows(load_detector_rows(parse_mixture(data)))
    written = [json.loads(line) for line in (output / "held_out_scores.jsonl").read_text().splitlines()]
    detector = HarmDetector.from_pretrained(output, dtype="float32")
    scores = detector.score([row.response for row in held_out], [row.prompt for row in held_out])
    assert sorted(row["harm_score"] for row in written) == pytest.approx(sorted(scores), abs=1e-5)


def test_half_precision_base_keeps_trained_weights_in_single(tiny_lm, data, tmp_path, trainers):
    assert main(flags(tiny_lm, data, tmp_path / "out", "--base-dtype", "bfloat16", "--bf16", "true")) == 0
    ((trainer, _),) = trainers
    for name, parameter in trainer.model.named_parameters():
        single = parameter.requires_grad or "score" in name
        assert parameter.dtype is (torch.float32 if single else torch.bfloat16), name


def test_full_fine_tuning_writes_a_model_that_loads(tiny_lm, data, tmp_path):
    output = tmp_path / "out"
    assert main(flags(tiny_lm, data, output, "--no-lora", "--num-layers", "1", "--num-train-epochs", "4")) == 0
    assert {path.name for path in output.iterdir()} >= {"config.json", "model.safetensors", "tokenizer.json"}
    harmful, harmless = HarmDetector.from_pretrained(output).score(["bread thorn", "bread bloom"], ["q", "q"])
    assert harmful > harmless


def test_training_on_all_windows(tiny_lm, data, tmp_path):
    more = ["--max-length", "24", "--max-windows", "0", "--balance-classes"]
    assert main(flags(tiny_lm, data, tmp_path / "out", *more)) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES


def test_gradient_checkpointing_changes_nothing_but_memory(tiny_lm, data, tmp_path, trainers):
    for name, more in (("plain", []), ("saving", ["--gradient-checkpointing", "true"])):
        assert main(flags(tiny_lm, data, tmp_path / name, "--max-steps", "3", *more)) == 0
    assert trainers[1][0].model.base_model.model.backbone.is_gradient_checkpointing
    plain, saving = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("plain", "saving"))
    for key, tensor in plain.items():
        torch.testing.assert_close(saving[key], tensor, rtol=1e-4, atol=1e-5)


def test_four_bit_base(data, tmp_path, trainers):
    """QLoRA: the base's layers are packed, adapter and head are not, and the result loads on the plain base."""
    pytest.importorskip("bitsandbytes")
    from tests.tiny import build_causal_lm

    base = build_causal_lm(tmp_path / "base", hidden_size=128, intermediate_size=256)  # its blocks hold 64 numbers
    assert main(flags(base, data, tmp_path / "out", "--load-in-4bit")) == 0
    ((trainer, _),) = trainers
    types = {name: parameter.dtype for name, parameter in trainer.model.named_parameters()}
    assert types["base_model.model.model.layers.0.self_attn.q_proj.base_layer.weight"] is torch.uint8
    assert all(types[name] is torch.float32 for name in types if "lora_" in name or "score" in name)
    assert 0 < HarmDetector.from_pretrained(tmp_path / "out").score(["bread"], ["q"])[0] < 1


def test_four_bit_base_without_its_library(tiny_lm, data, tmp_path, capsys, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "bitsandbytes" else find(name))
    assert main(flags(tiny_lm, data, tmp_path / "out", "--load-in-4bit")) == 2
    assert "pip install bitsandbytes" in capsys.readouterr().err


def test_tensorboard_gets_the_loss_by_default(tiny_lm, data, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    output = tmp_path / "out"
    assert main(flags(tiny_lm, data, output, "--logging-steps", "1")) == 0
    (events,) = output.rglob("events.out.tfevents.*")
    log = EventAccumulator(str(events))
    log.Reload()
    assert len(log.Scalars("train/loss")) > 1


def test_no_tracker_when_asked_or_when_none_is_installed(tiny_lm, data, tmp_path, monkeypatch):
    assert main(flags(tiny_lm, data, tmp_path / "asked", "--report-to", "none")) == 0
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "tensorboard" else find(name))
    assert main(flags(tiny_lm, data, tmp_path / "absent")) == 0
    assert not list(tmp_path.rglob("events.*"))


def test_dry_run_writes_nothing(tiny_lm, data, tmp_path, capsys):
    output = tmp_path / "out"
    assert main(flags(tiny_lm, data, output, "--dry-run")) == 0
    assert "training:" in capsys.readouterr().out
    assert not output.exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--train-data", "absent.jsonl"], "absent.jsonl does not exist"),
        (["--lora-target-modules", "query"], "--lora-target-modules names query; this base has"),
        (["--lora-layers-from", "2"], "--lora-layers-from is 2; the model has layers 0 to 1"),
        (["--label-smoothing", "labelled"], "--label-smoothing has 'labelled'"),
        (["--loss", "hinge"], "hinge"),
        (["--base", "nowhere/"], "nowhere/"),
        (["--pooling", "max"], "pooling"),
        (["--output-dir", ""], "--output-dir is missing"),
    ],
)
def test_bad_input_is_one_line(tiny_lm, data, tmp_path, capsys, more, message):
    output = tmp_path / "out"
    assert main(flags(tiny_lm, data, output, *more)) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error
    assert not output.exists()


def test_an_output_folder_with_files_is_left_alone(tiny_lm, data, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "kept").write_text("x")
    assert main(flags(tiny_lm, data, tmp_path / "out")) == 2
    assert "not empty" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["kept"]


def test_going_on_from_an_adapter_with_stretches_prefixes_and_group_weights(tiny_lm, data, tmp_path, trainers):
    """What lies below the first trained layer stays as the adapter has it; the rest moves on from there."""
    first, second = tmp_path / "first", tmp_path / "second"
    assert main(flags(tiny_lm, data, first, "--pooling", "mean_response", "--lora-r", "4")) == 0
    more = ("--init-adapter", str(first), "--lora-layers-from", "1", "--pooling", "mean_response")
    extra = ("--stretches", "4, 8", "--prefixes", "0.5", "--group-weights", "labelled=2")
    assert main(flags(tiny_lm, data, second, *more, *extra)) == 0
    before, after = (load_file(folder / "adapter_model.safetensors") for folder in (first, second))
    assert before.keys() == after.keys()
    for name, weight in before.items():
        assert torch.equal(weight, after[name]) == (".layers.0." in name), name
    (old, _), (new, _) = trainers
    assert len(new.train_dataset) > len(old.train_dataset)
    weights = [row.weight for unit in new.train_dataset for row in unit]
    assert len(set(weights)) > 2
    assert json.loads((second / "adapter_config.json").read_text())["r"] == 4
    assert HarmDetector.from_pretrained(second).classifier.stretches == (4, 8)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--stretches", "four", "--pooling", "mean_response"), "--stretches"),
        (("--stretches", "4", "--pooling", "mean"), "stretches"),
        (("--prefixes", "2"), "--prefixes"),
        (("--init-adapter", "nowhere", "--no-lora"), "--init-adapter"),
        (("--init-adapter", "/nowhere/adapter"), "/nowhere/adapter"),
        (("--group-weights", "labelled"), "--group-weights"),
    ],
)
def test_bad_values_of_the_new_options_are_one_line(tiny_lm, data, tmp_path, capsys, more, message):
    assert main(flags(tiny_lm, data, tmp_path / "out", *more)) != 0
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in error
