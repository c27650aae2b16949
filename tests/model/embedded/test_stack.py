"""The shipped stack, composed from a tiny base by the same code as from the real one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from llava.errors import InputError
from llava.model.embedded import stack as embedded
from llava.model.embedded.reading_tower import ReadingTower, ReadingTowerConfig
from llava.model.loading import load_mllm
from tests.model.embedded.test_reading_tower import BACKBONE


@pytest.fixture
def stack(tiny_lm, tmp_path, monkeypatch):
    """Environment in which `embedded` is built from the tiny language model."""
    monkeypatch.setenv("MLLM_PROTECTOR_BASE", str(tiny_lm))
    monkeypatch.setenv("MLLM_PROTECTOR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_embedded_is_built_once_and_answers(stack, tiny_lm):
    model = load_mllm("embedded", device="cpu")
    assert model.notes == [embedded.UNTRAINED_NOTE]
    assert "untrained" in model.notes[0]
    answers = model.generate(["Hi", "Hi"], [Image.new("RGB", (300, 200)), None], max_new_tokens=4)
    assert len(answers) == 2
    image_token = model.tokenizer.convert_tokens_to_ids("<image>")
    assert model.encode(["Hi"], [Image.new("RGB", (300, 200))])["input_ids"].eq(image_token).sum() == 49
    [folder] = [path for path in stack.iterdir() if path.is_dir()]
    before = folder.stat().st_mtime_ns
    assert embedded.resolve_mllm("embedded") == str(folder)
    assert folder.stat().st_mtime_ns == before
    description = json.loads((folder / "embedded.json").read_text())
    assert description["vision_trained"] is False
    assert description["base"] == str(tiny_lm)


def test_the_language_model_is_kept_exactly(stack, tiny_lm):
    model = load_mllm("embedded", device="cpu")
    base = AutoModelForCausalLM.from_pretrained(tiny_lm, dtype=torch.float32).eval()
    inputs = model.encode(["How do I bake bread?"], None)
    with torch.inference_mode():
        ours = model.model(**inputs).logits[..., : base.config.vocab_size]
        theirs = base(**inputs).logits
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_the_prompt_is_smollms_with_the_picture_before_the_text(stack):
    model = load_mllm("embedded", device="cpu")
    ids = model.encode(["Hi"], None)["input_ids"][0]
    assert model.tokenizer.decode(ids) == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    ids = model.encode(["Hi"], [Image.new("RGB", (8, 8))])["input_ids"][0]
    assert f"<|im_start|>user\n{'<image>' * 49}\nHi<|im_end|>" in model.tokenizer.decode(ids)


def test_the_recipe_decides_the_folder(stack, tiny_lm, monkeypatch):
    first = embedded.resolve_mllm("embedded")
    monkeypatch.setattr(embedded, "SEED", 1)
    second = embedded.resolve_mllm("embedded")
    assert first != second
    weights = [load_file(f"{folder}/model.safetensors") for folder in (first, second)]
    tower = next(key for key in weights[0] if "vision_tower" in key and key.endswith("q_proj.weight"))
    assert not torch.equal(weights[0][tower], weights[1][tower])


@pytest.fixture
def vision(tmp_path, monkeypatch):
    """A reading tower and projector for the tiny language model, in the place of the packaged ones."""
    config = ReadingTowerConfig(BACKBONE, num_slots=9, num_prefix_slots=2, lexicon_size=5)
    tower = ReadingTower(config)
    projector = {f"linear_{n}.weight": torch.full((32, size), 0.25) for n, size in ((1, 14), (2, 32))}
    projector |= {f"linear_{n}.bias": torch.zeros(32) for n in (1, 2)}
    weights = {f"vision_tower.{key}": value for key, value in tower.state_dict().items()}
    weights |= {f"multi_modal_projector.{key}": value for key, value in projector.items()}
    save_file(
        {key: value.half() if value.is_floating_point() else value for key, value in weights.items()},
        tmp_path / "model.safetensors",
    )
    description = {
        "vision_config": config.to_diff_dict() | {"model_type": config.model_type},
        "language_model": {"hidden_size": 32},
        "notes": ["vision tower is trained on shapes"],
    }
    (tmp_path / "vision.json").write_text(json.dumps(description))
    monkeypatch.setattr(embedded, "VISION_WEIGHTS", tmp_path / "model.safetensors")
    monkeypatch.setattr(embedded, "VISION_DESCRIPTION", tmp_path / "vision.json")
    return weights


def test_packaged_vision_weights_are_used(stack, vision, tmp_path):
    model = load_mllm("embedded", device="cpu")
    assert model.notes == ["vision tower is trained on shapes"]
    assert model.model.model.multi_modal_projector.linear_1.weight.eq(0.25).all()
    assert type(model.model.model.vision_tower) is ReadingTower
    image_token = model.tokenizer.convert_tokens_to_ids("<image>")
    inputs = model.encode(["Hi"], [Image.new("RGB", (300, 20))])
    assert inputs["input_ids"].eq(image_token).sum() == 9
    assert inputs["pixel_values"].shape == (1, 3, 32, 32), "the whole picture, padded to a square"
    assert len(model.generate(["Hi"], [Image.new("RGB", (300, 200))], max_new_tokens=2)) == 1
    vision.pop("vision_tower.lexicon")
    save_file(vision, tmp_path / "model.safetensors")
    with pytest.raises(RuntimeError, match="Missing key"):
        embedded.resolve_mllm("embedded")


def test_another_base_gets_no_vision(stack, vision, tmp_path):
    description = json.loads((tmp_path / "vision.json").read_text())
    description["language_model"]["hidden_size"] = 576
    (tmp_path / "vision.json").write_text(json.dumps(description))
    model = load_mllm("embedded", device="cpu")
    assert model.notes == [embedded.UNTRAINED_NOTE]
    assert model.model.config.vision_config.model_type == "clip_vision_model"


def test_an_installation_without_vision_weights_says_so(stack, monkeypatch, tmp_path):
    monkeypatch.setattr(embedded, "VISION_WEIGHTS", tmp_path / "none.safetensors")
    with pytest.raises(InputError, match="carries no vision weights"):
        embedded.resolve_mllm("embedded")


def test_two_processes_at_once_share_one_build(tiny_lm, tmp_path):
    environment = {
        **os.environ,
        "MLLM_PROTECTOR_BASE": str(tiny_lm),
        "MLLM_PROTECTOR_CACHE": str(tmp_path / "cache"),
        "OMP_NUM_THREADS": "1",
    }
    program = (
        "from llava.model.loading import load_mllm; m = load_mllm('embedded', device='cpu'); "
        "print(m.generate(['Hi'], max_new_tokens=3))"
    )
    command = [sys.executable, "-c", program]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    running = [subprocess.Popen(command, **pipes) for _ in range(2)]
    results = [process.communicate(timeout=300) for process in running]
    assert [process.returncode for process in running] == [0, 0], results
    assert results[0] == results[1]
    assert results[0][1] == ""
    assert len([path for path in (tmp_path / "cache").iterdir() if path.is_dir()]) == 1


def test_adapters_and_other_names(tmp_path, monkeypatch):
    monkeypatch.setattr(embedded, "ASSETS", tmp_path)
    assert embedded.resolve_mllm("some/model") == "some/model"
    assert embedded.resolve_adapter("detector", "some/path") == "some/path"
    with pytest.raises(InputError, match="no embedded detector"):
        embedded.resolve_adapter("detector", "embedded")
    (tmp_path / "detector").mkdir()
    assert embedded.resolve_adapter("detector", "embedded") == str(tmp_path / "detector")
    with pytest.raises(ValueError, match="projector"):
        embedded.resolve_adapter("projector", "embedded")
