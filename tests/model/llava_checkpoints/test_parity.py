"""The yardstick itself: what it reads, and that that its weights come from disk as they should."""

from __future__ import annotations

import torch

from llava.model.llava_checkpoints.format import recognise
from llava.model.llava_checkpoints.parity import OriginalLlava, _collapse, open_hf, plain_hf_name, read_updates
from llava.model.llava_checkpoints.source import OriginalSource


def test_runs_of_picture_positions_become_one_index():
    assert _collapse([1, 9, 9, 9, 5, 9], 9) == [1, -200, 5, -200]
    assert _collapse([9, 9, 5], 9) == [-200, 5]
    assert _collapse([1, 5, 9], 9) == [1, 5, -200]
    assert _collapse([9, 5, 9], 9) == [-200, 5, -200]


def test_updates_of_a_lora_are_those_of_peft(originals):
    from peft import PeftModel
    from peft.tuners.lora import LoraLayer
    from transformers import AutoModelForCausalLM

    source = OriginalSource(recognise(originals["lora"]))
    base = AutoModelForCausalLM.from_pretrained(source.base)
    wrapped = PeftModel.from_pretrained(base, str(originals["lora"]))
    updates = read_updates(originals["lora"])
    layers = {name: module for name, module in wrapped.named_modules() if isinstance(module, LoraLayer)}
    assert {f"{name.removeprefix('base_model.model.')}.weight" for name in layers} == set(updates)
    for name, layer in layers.items():
        expected = layer.get_delta_weight("default")
        assert expected.abs().max() > 1e-3
        torch.testing.assert_close(updates[f"{name.removeprefix('base_model.model.')}.weight"](), expected)


def test_an_hf_checkpoint_computes_from_disk_as_transformers_does(tiny_llava):
    from transformers import LlavaForConditionalGeneration

    ids = torch.tensor([[1, 5, 9, 7]])
    with torch.inference_mode():
        expected = LlavaForConditionalGeneration.from_pretrained(tiny_llava).eval()(input_ids=ids).logits
        torch.testing.assert_close(open_hf(tiny_llava)(input_ids=ids).logits, expected)


def test_names_in_files_and_in_the_network_meet(tiny_llava):
    from safetensors import safe_open
    from transformers import LlavaForConditionalGeneration

    names = {plain_hf_name(name) for name in LlavaForConditionalGeneration.from_pretrained(tiny_llava).state_dict()}
    with safe_open(tiny_llava / "model.safetensors", "pt") as file:
        assert {plain_hf_name(key) for key in file.keys()} == names  # noqa: SIM118 - no dictionary


def test_the_picture_takes_the_place_of_its_index(originals):
    model = OriginalLlava(OriginalSource(recognise(originals["v15_bin"])))
    pixels = torch.randn(1, 3, 32, 32)
    assert model.image_features(pixels).shape == (4, 32)
    with_picture = model.logits([1, 5, -200, 7], pixels)
    assert with_picture.shape[0] == 3 + 4
    # What stands before the picture does not see it.
    torch.testing.assert_close(with_picture[:2], model.logits([1, 5], None), atol=1e-5, rtol=1e-5)
    other = model.logits([1, 5, -200, 7], torch.randn(1, 3, 32, 32))
    assert (with_picture[-1] - other[-1]).abs().max() > 1e-3


def test_features_are_those_of_the_last_layer_but_one(originals):
    model = OriginalLlava(OriginalSource(recognise(originals["v1_linear"])))
    pixels = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        hidden = model.tower(pixels, output_hidden_states=True).hidden_states
        features = model.image_features(pixels)
    assert len(hidden) == 4
    expected = hidden[2][0, 1:] @ model.projector["weight"].T + model.projector["bias"]
    torch.testing.assert_close(features, expected)
