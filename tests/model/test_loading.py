"""Loading: what loads, and that everything else is refused in one line that names the cause."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from llava.errors import InputError
from llava.model.loading import check_weights, load_mllm, load_processor


@pytest.fixture
def copy(tiny_llava, tmp_path) -> Path:
    return Path(shutil.copytree(tiny_llava, tmp_path / "copy"))


def refusal(path, **options) -> str:
    with pytest.raises(InputError) as caught:
        load_mllm(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_hf_native_llava_loads_and_answers(tiny_llava):
    model = load_mllm(tiny_llava, device="cpu", dtype="float32")
    answers = model.generate(["Hi", "Hi"], [Image.new("RGB", (30, 20)), None], max_new_tokens=4)
    assert [type(answer) for answer in answers] == [str, str]
    assert (model.name, model.notes) == (str(tiny_llava), [])
    assert model.model.dtype == torch.float32
    assert not model.model.training


def test_loading_is_quiet(tiny_llava, capfd):
    load_mllm(tiny_llava, device="cpu").generate(["Hi"], max_new_tokens=2)
    assert capfd.readouterr() == ("", "")


def test_dtype_is_honoured(tiny_llava):
    model = load_mllm(tiny_llava, device="cpu", dtype="bfloat16")
    assert model.model.dtype == torch.bfloat16
    assert len(model.generate(["Hi"], [Image.new("RGB", (30, 20))], max_new_tokens=2)) == 1


def test_pillow_prepares_pictures_whether_torchvision_is_installed_or_not(tiny_llava):
    assert load_processor(str(tiny_llava), "tiny").image_processor.backend == "pil"
    assert load_mllm(tiny_llava, device="cpu").processor.image_processor.backend == "pil"


def test_a_missing_folder_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path / "nothing", "./nothing", "a/b/c", "~/no such folder"):
        assert refusal(path) == f"model folder {path} does not exist; check the path"
    (tmp_path / "file").write_text("")
    assert "is a file" in refusal(tmp_path / "file")


def test_a_hub_id_that_cannot_be_fetched_is_named():
    message = refusal("someone/some-model")
    assert "model someone/some-model is no folder and could not be fetched from the hub" in message


def test_a_text_only_model_is_refused(tiny_lm):
    assert "is a text-only language model (llama)" in refusal(tiny_lm)


def test_a_classifier_is_not_a_vision_language_model(tiny_llava, copy):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config["vision_config"], "architectures": ["CLIPVisionModel"]}))
    assert "is not a vision-language model" in refusal(copy)


def test_missing_extra_and_misshapen_weights_are_named(copy):
    whole = load_file(copy / "model.safetensors")
    norm = next(key for key in whole if key.endswith("layers.1.input_layernorm.weight"))
    head = next(key for key in whole if key.endswith("lm_head.weight"))

    def rewrite(weights: dict[str, torch.Tensor]) -> str:
        save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
        return refusal(copy)

    message = rewrite({key: value for key, value in whole.items() if key != norm})
    assert "missing: " in message
    assert "layers.1.input_layernorm.weight" in message
    assert "unknown: model.stray.weight" in rewrite({**whole, "model.stray.weight": torch.zeros(2)})
    assert "lm_head.weight" in rewrite({**whole, head: torch.zeros(3, 3)})


def test_a_truncated_weight_file_is_named(copy):
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "damaged" in refusal(copy)


def test_a_folder_without_processor_or_config_is_named(copy):
    (copy / "processor_config.json").unlink()
    assert "has no processor" in refusal(copy)
    (copy / "processor_config.json").write_text("{}")
    (copy / "config.json").unlink()
    assert str(copy) in refusal(copy)


def test_old_processors_learn_to_count_picture_positions(copy):
    file = copy / "processor_config.json"
    config = json.loads(file.read_text())
    for key in ("patch_size", "vision_feature_select_strategy", "num_additional_image_tokens"):
        config.pop(key, None)
    file.write_text(json.dumps(config))
    model = load_mllm(copy, device="cpu")
    assert len(model.generate(["Hi"], [Image.new("RGB", (30, 20))], max_new_tokens=2)) == 1


def test_options_that_cannot_be_served_are_named(tiny_llava, monkeypatch):
    assert "cannot be used" in refusal(tiny_llava, device="cuda:7")
    assert "dtype" in refusal(tiny_llava, device="cpu", dtype="float8")
    assert "exclude each other" in refusal(tiny_llava, load_in_8bit=True, load_in_4bit=True)
    assert refusal(tiny_llava, device="cpu", attn_implementation="no_such_kernel")


def test_quantisation_names_what_is_missing(tiny_llava, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "bitsandbytes" else find(name))
    assert "pip install bitsandbytes" in refusal(tiny_llava, load_in_4bit=True)
    assert "--load-in-8bit" in refusal(tiny_llava, load_in_8bit=True)


def test_computed_buffers_are_not_counted_as_unknown():
    check_weights("x", {"unexpected_keys": {"model.layers.0.self_attn.rotary_emb.inv_freq"}, "missing_keys": set()})
    with pytest.raises(InputError, match=r"missing: a, b, c and 2 more"):
        check_weights("x", {"missing_keys": {"e", "d", "c", "b", "a"}})
