"""Writing the original format: which models it can express, and how two layers become one."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from torch.nn.functional import linear
from transformers import AutoTokenizer

from llava.errors import InputError
from llava.model.llava_checkpoints.convert import convert_checkpoint
from llava.model.llava_checkpoints.to_original import export_original, original_projector


def random_layers(second=None, second_bias=None):
    generator = torch.Generator().manual_seed(0)
    first, bias = torch.randn(8, 5, generator=generator), torch.randn(8, generator=generator)
    second = torch.randn(8, 8, generator=generator) if second is None else second
    second_bias = torch.randn(8, generator=generator) if second_bias is None else second_bias
    return {
        "linear_1.weight": first,
        "linear_1.bias": bias,
        "linear_2.weight": second,
        "linear_2.bias": second_bias,
    }


def test_an_identity_as_second_layer_gives_the_first_back_exactly():
    layers = random_layers(torch.eye(8), torch.zeros(8))
    kind, projector = original_projector(layers, "linear")
    assert kind == "linear"
    assert torch.equal(projector["weight"], layers["linear_1.weight"])
    assert torch.equal(projector["bias"], layers["linear_1.bias"])


def test_two_layers_with_nothing_between_become_one():
    layers = random_layers()
    _, projector = original_projector(layers, "linear")
    x = torch.randn(3, 5)
    two = linear(
        linear(x, layers["linear_1.weight"], layers["linear_1.bias"]),
        layers["linear_2.weight"],
        layers["linear_2.bias"],
    )
    torch.testing.assert_close(linear(x, projector["weight"], projector["bias"]), two, atol=1e-4, rtol=1e-4)


def test_gelu_keeps_both_layers():
    layers = random_layers()
    kind, projector = original_projector(layers, "gelu")
    assert kind == "mlp2x_gelu"
    assert torch.equal(projector["2.bias"], layers["linear_2.bias"])


def test_the_image_token_goes_from_the_tokenizer_with_its_row(originals, tmp_path):
    convert_checkpoint(originals["v15_bin"], tmp_path / "hf")
    convert_checkpoint(tmp_path / "hf", tmp_path / "back", to="original")
    vocabulary = json.loads((tmp_path / "back" / "config.json").read_text())["vocab_size"]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "back")
    assert len(tokenizer) == vocabulary
    assert "<image>" not in tokenizer.get_vocab()
    assert (tmp_path / "back" / "vision_tower" / "preprocessor_config.json").is_file()


def test_a_recorded_tower_name_is_kept(originals, tmp_path):
    convert_checkpoint(originals["v15_bin"], tmp_path / "hf")
    name = "openai/clip-vit-large-patch14-336"
    convert_checkpoint(tmp_path / "hf", tmp_path / "back", to="original", vision_tower=name)
    assert json.loads((tmp_path / "back" / "config.json").read_text())["mm_vision_tower"] == name


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"projector_hidden_act": "relu"}, "projector activation is relu"),
        ({"vision_feature_layer": [-2, -1]}, "joins several vision layers"),
    ],
)
def test_what_the_format_cannot_say_is_refused(tiny_llava, tmp_path, changes, named):
    folder = shutil.copytree(tiny_llava, tmp_path / "copy")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    with pytest.raises(InputError, match=named):
        export_original(folder, tmp_path / "out", "tower")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("file", ["config.json", "processor_config.json", "tokenizer_config.json"])
def test_a_config_of_wrong_types_is_one_line(tiny_llava, tmp_path, file):
    folder = shutil.copytree(tiny_llava, tmp_path / "copy")
    values = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(dict.fromkeys(values, 5)))
    with pytest.raises(InputError, match=r"checkpoint .*copy cannot be loaded \(.+\); check its config files"):
        export_original(folder, tmp_path / "out", "tower")
    assert not (tmp_path / "out").exists()


def test_a_stray_weight_is_refused(tiny_llava, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(tiny_llava, tmp_path / "copy")
    weights = load_file(folder / "model.safetensors")
    save_file({**weights, "stray": torch.zeros(1)}, folder / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match="stray, which is no weight of a LLaVA"):
        export_original(folder, tmp_path / "out", "tower")
