import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from llava.errors import InputError
from llava.model.files.model import check_model_config, check_model_files, read_model_config
from tests.tiny import build_causal_lm


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"hidden_size": "32"}, "'hidden_size' is '32'"),
        ({"num_hidden_layers": 10**9}, "'num_hidden_layers' is 1000000000"),
        ({"num_hidden_layers": True}, "'num_hidden_layers' is true"),
        ({"vocab_size": -1}, "'vocab_size' is -1"),
        ({"model_type": ["llama"]}, "'model_type' is a list"),
        ({"architectures": "Llama"}, "'architectures' is 'Llama'"),
        ({"text_config": 5}, "'text_config' is 5"),
        ({"vision_config": {"image_size": 1.5}}, r"'vision_config': 'image_size' is 1\.5"),
    ],
)
def test_a_wrong_field_is_named(change, named):
    with pytest.raises(InputError, match=named):
        check_model_config({"model_type": "llama", **change}, "config.json")


def test_what_models_have_passes():
    """Sizes per layer or side, nulls, and nested configs."""
    config = {"intermediate_size": [1, 2], "text_config": {"vocab_size": 10}, "head_dim": None, "num_layers": [2, 2]}
    assert check_model_config(config, "x") == config


def test_a_config_that_is_no_object(tmp_path):
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(InputError, match=r"config\.json is a list"):
        read_model_config(tmp_path)


def test_whole_numbers_for_weights_need_a_quantization(tmp_path):
    folder = build_causal_lm(tmp_path / "lm")
    assert check_model_files(folder)["model_type"] == "llama"
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.0.mlp.up_proj.weight"] = torch.ones(64, 32, dtype=torch.int8)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"up_proj\.weight as I8, though its config\.json names no quantization"):
        check_model_files(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "x"}}))
    check_model_files(folder)
