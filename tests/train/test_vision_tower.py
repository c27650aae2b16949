"""The whole training of the vision tower on a tiny language model: files, resuming, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from llava.data.pictures import find_typefaces
from llava.errors import InputError
from llava.model.embedded import stack as embedded
from llava.model.loading import load_mllm
from llava.train.arguments import parse_arguments
from llava.train.vision.arguments import PictureArguments, TowerArguments, TowerRunArguments
from llava.train.vision_tower import Trainer, main

RECIPE = Path(embedded.__file__).parents[2] / "train" / "configs" / "embedded_vision.yaml"
ALL = (PictureArguments, TowerArguments, TowerRunArguments)


@pytest.fixture
def flags(tiny_lm):
    pytest.importorskip("wordfreq")
    small = {
        "base": tiny_lm,
        "common-words": 40,
        "rare-words": 0,
        "rare-share": 0,
        "mixture": "phrase:0.2,shapes:0.5,captioned:0.3",
        "image-size": 160,
        "embed-dim": 8,
        "depths": "0,1,1",
        "num-slots": 49,
        "read-steps": 2,
        "read-batch-size": 2,
        "speak-steps": 2,
        "speak-batch-size": 2,
        "checkpoint-steps": 1,
        "logging-steps": 1,
    }
    return [word for name, value in small.items() for word in (f"--{name}", str(value))]


def test_it_trains_and_the_result_is_the_embedded_model(flags, tiny_lm, tmp_path, monkeypatch):
    assert main([*flags, "--output-dir", str(tmp_path / "run")]) == 0
    files = {path.name for path in (tmp_path / "run").iterdir()}
    assert files == {"model.safetensors", "vision.json", "reader.pt", "train_config.yaml"}
    weights = load_file(tmp_path / "run" / "model.safetensors")
    lexicon = weights.pop("vision_tower.lexicon")
    assert lexicon.dtype == torch.uint8
    assert {value.dtype for value in weights.values()} == {torch.float16}
    assert {key.partition(".")[0] for key in weights} == {"vision_tower", "multi_modal_projector"}
    description = json.loads((tmp_path / "run" / "vision.json").read_text())
    assert description["language_model"]["hidden_size"] == 32
    assert yaml.safe_load((tmp_path / "run" / "train_config.yaml").read_text())["common_words"] == 40

    monkeypatch.setenv("MLLM_PROTECTOR_BASE", str(tiny_lm))
    monkeypatch.setenv("MLLM_PROTECTOR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(embedded, "VISION_WEIGHTS", tmp_path / "run" / "model.safetensors")
    monkeypatch.setattr(embedded, "VISION_DESCRIPTION", tmp_path / "run" / "vision.json")
    model = load_mllm("embedded", device="cpu", dtype="float32")
    assert embedded.UNTRAINED_NOTE not in model.notes
    assert torch.equal(model.model.model.vision_tower.lexicon, lexicon)
    speller = model.model.model.vision_tower.speller.weight
    assert torch.equal(speller.half(), weights["vision_tower.speller.weight"])
    [face] = find_typefaces(["Aileron"])
    assert face.path is None
    assert model.generate(["Hi"], [model_picture()], max_new_tokens=2) != [None]


def test_the_language_model_stays_causal(flags, tmp_path):
    """Else the slots are tuned for a model that has seen the answer."""
    trainer = Trainer(*parse_arguments(ALL, [*flags, "--output-dir", str(tmp_path)], ""))
    before = torch.randn(1, 6, 32, dtype=torch.bfloat16)
    after = before.clone()
    after[:, -1] += 1
    first, second = (
        trainer.language_model.model(
            inputs_embeds=rows, attention_mask=torch.ones(1, 6, dtype=torch.long), use_cache=False
        ).last_hidden_state
        for rows in (before, after)
    )
    assert torch.equal(first[:, :-1], second[:, :-1])
    assert not torch.equal(first[:, -1], second[:, -1])


def model_picture():
    from llava.data.typography import render_typo

    return render_typo("bread")


def test_resuming_goes_on_where_it_stopped(flags, tmp_path):
    folder = str(tmp_path / "run")
    assert main([*flags, "--output-dir", folder]) == 0
    before = torch.load(tmp_path / "run" / "reader.pt", weights_only=True)
    assert before["step"] == 2
    assert main([*flags, "--output-dir", folder]) == 2, "a folder with files is not written over"
    assert main([*flags, "--read-steps", "4", "--output-dir", folder, "--resume"]) == 0
    after = torch.load(tmp_path / "run" / "reader.pt", weights_only=True)
    assert after["step"] == 4
    key = "vision_tower.speller.weight"
    assert not torch.equal(before["reader"][key], after["reader"][key])


def test_the_recipe_is_whole():
    pictures, tower, run = parse_arguments(ALL, ["--config", str(RECIPE)], "")
    assert pictures.common_words >= 3000
    assert {"Aileron", "FreeMonoBold"} <= set(pictures.typefaces.split(","))
    assert abs(sum(pictures.weights().values()) - 1) < 1e-6
    assert tower.num_slots == 49
    assert run.read_steps > 0


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--mixture", "phrase", "write KIND:WEIGHT"),
        ("--mixture", "photo:1", "--mixture names photo"),
        ("--depths", "two", "--depths is 'two'"),
        ("--image-size", "150", "multiple of 16"),
        ("--num-slots", "50", "square number"),
        ("--rare-share", "1", "--rare-share in"),
        ("--read-batch-size", "0", "batch sizes 1 or more"),
    ],
)
def test_bad_values_are_named(flag, value, message):
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        parse_arguments(ALL, [flag, value], "")


def test_resume_without_a_checkpoint_is_refused(flags, tmp_path, capsys):
    assert main([*flags, "--output-dir", str(tmp_path / "none"), "--resume"]) == 2
    assert "there is no" in capsys.readouterr().err
    assert main(flags) == 2
    assert "--output-dir is missing" in capsys.readouterr().err
