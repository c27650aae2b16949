from dataclasses import fields

import pytest
import torch
import yaml
from transformers import TrainingArguments

from llava.errors import InputError
from llava.train import arguments
from llava.train.arguments import DataArguments, ModelArguments, RunArguments, parse_arguments, resolved_arguments
from llava.train.detoxifier import DetoxifierArguments
from llava.train.harm_detector import DetectorArguments

GROUPS = (DataArguments, ModelArguments, RunArguments)


def parse(*flags, groups=GROUPS):
    return parse_arguments(groups, ["--train-data", "rows.jsonl", *flags], "Test.")


def test_flags_beat_the_file_and_the_file_beats_defaults(tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text("learning-rate: 1e-3\nlora_r: 4\nlora_alpha: 7\n")
    data, model, run = parse("--config", str(config), "--lora-r", "9")
    assert (model.lora_r, model.lora_alpha, model.lora_dropout) == (9, 7, 0.05)
    assert run.learning_rate == 1e-3  # YAML reads 1e-3 as a text
    assert data.train_data == "rows.jsonl"


def test_unknown_key_is_named(tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text("lora_rank: 4\n")
    with pytest.raises(InputError, match=r"run.yaml: unknown key lora_rank"):
        parse("--config", str(config))


@pytest.mark.parametrize(
    ("content", "message"), [("a: [1", "not valid YAML"), ("- a\n", "not a mapping"), (None, "cannot be read")]
)
def test_bad_files(tmp_path, content, message):
    config = tmp_path / "run.yaml"
    if content is not None:
        config.write_text(content)
    with pytest.raises(InputError, match=message):
        parse("--config", str(config))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--lora-rank", "3"], r"unknown flag --lora-rank"),
        (["--learning-rat", "3"], r"did you mean --learning-rate\?"),
        (["--lora-r", "many"], "invalid int value: 'many'"),
    ],
)
def test_bad_flags_are_one_line(flags, message):
    with pytest.raises(InputError, match=message) as caught:
        parse(*flags)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--held-out-fraction", "1"], "--held-out-fraction"),
        (["--base-dtype", "int3"], "--base-dtype is int3"),
        (["--lora-r", "0"], "--lora-r"),
        (["--load-in-4bit", "--no-lora"], "--load-in-4bit"),
        (["--lr-scheduler-type", "zigzag"], "zigzag"),
    ],
)
def test_bad_values_name_the_flag(flags, message):
    with pytest.raises(InputError, match=message) as caught:
        parse(*flags)
    assert "\n" not in str(caught.value)


def test_resolved_arguments_give_the_same_run_again(tmp_path):
    groups = (DetectorArguments, *GROUPS)
    flags = [
        "--learning-rate",
        "3e-4",
        "--max-steps",
        "7",
        "--loss",
        "bce+pairwise",
        "--output-dir",
        "o",
        "--bf16",
        "false",
    ]
    first = parse(*flags, groups=groups)
    config = tmp_path / "train_config.yaml"
    config.write_text(yaml.safe_dump(resolved_arguments(*first)))
    again = parse_arguments(groups, ["--config", str(config)], "Test.")
    assert resolved_arguments(*again) == resolved_arguments(*first)
    assert (again[0].loss, again[3].max_steps, again[3].learning_rate) == ("bce+pairwise", 7, 3e-4)


@pytest.mark.parametrize(
    ("device", "dtype", "flags", "expected"),
    [
        ("cpu", torch.float32, [], (False, False)),
        ("cuda", torch.bfloat16, [], (True, False)),
        ("cuda", torch.float16, [], (False, True)),
        ("mps", torch.float16, [], (False, False)),
        ("cuda", torch.float16, ["--bf16", "false"], (False, False)),
        ("cuda", torch.float16, ["--fp16", "false"], (False, False)),
        ("cuda", torch.bfloat16, ["--fp16", "true"], (False, True)),
        ("cuda", torch.bfloat16, ["--fp16", "false"], (True, False)),
    ],
)
def test_half_precision_follows_the_device(monkeypatch, device, dtype, flags, expected):
    """The device is pretended; that it could compute so is what the Trainer would check next."""
    monkeypatch.setattr(arguments, "pick_device", lambda: torch.device(device))
    monkeypatch.setattr(arguments, "pick_dtype", lambda place: dtype)
    monkeypatch.setattr(TrainingArguments, "_validate_args", lambda self: None)
    run = parse(*flags)[2]
    assert (run.bf16, run.fp16) == expected
    again = resolved_arguments(run)
    assert (again["bf16"], again["fp16"]) == expected


def test_a_cpu_that_is_asked_for_computes_in_single_precision(monkeypatch):
    """Whatever else the machine has, which is pretended."""
    monkeypatch.setattr(arguments, "pick_device", lambda: torch.device("cuda"))
    run = parse("--use-cpu", "true")[2]
    assert (run.bf16, run.fp16, run.use_cpu, run.device.type) == (False, False, True, "cpu")


def test_more_processes_than_devices_are_refused(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 1)
    for rank in ("0", "1"):
        monkeypatch.setenv("LOCAL_RANK", rank)
        arguments.check_processes(torch.device("cpu"))
    with pytest.raises(InputError, match=r"process 2 on this machine has no cuda.*start 1 .*--use-cpu"):
        arguments.check_processes(torch.device("cuda", 0))
    monkeypatch.setenv("LOCAL_RANK", "0")
    arguments.check_processes(torch.device("cuda", 0))


@pytest.mark.parametrize(
    ("name", "words"), [("nonsense", ["nonsense", "wandb", "none"]), ("wandb", ["pip install wandb"])]
)
def test_trackers_are_checked_at_once(monkeypatch, name, words):
    from transformers.integrations import integration_utils

    monkeypatch.setattr(integration_utils, "is_wandb_available", lambda: False)
    with pytest.raises(InputError) as caught:
        parse("--report-to", name)
    assert "\n" not in str(caught.value)
    for word in ("--report-to", *words):
        assert word in str(caught.value)


def test_every_own_flag_has_help():
    for group in (DetectorArguments, DetoxifierArguments, *GROUPS[:2]):
        for entry in fields(group):
            assert entry.metadata["help"].endswith(("…", "."))
