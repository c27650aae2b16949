"""Telling checkpoint formats apart by their content."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from llava.errors import InputError
from llava.model.llava_checkpoints.format import Kind, is_original_config, recognise


def test_each_form_is_recognised(originals):
    kinds = {name: recognise(folder).kind for name, folder in originals.items()}
    assert kinds == {
        **dict.fromkeys(["v15_bin", "v15_safetensors", "v15_half", "v1_linear", "tower_inside"], Kind.FULL),
        **dict.fromkeys(["lora", "lora_plain_keys"], Kind.LORA),
        **dict.fromkeys(["projector", "projector_tokens"], Kind.PROJECTOR),
    }


def test_other_models_are_not_ours(tiny_llava, tiny_lm, tmp_path, originals):
    assert recognise(tiny_llava) is None
    assert recognise(tiny_lm) is None
    assert recognise(tmp_path) is None
    assert recognise(originals["lora"].parent / "base") is None
    assert is_original_config({"model_type": "llava"})
    assert not is_original_config({"model_type": "llava", "text_config": {}})


def test_the_path_does_not_matter(originals, tmp_path):
    folder = shutil.copytree(originals["v15_bin"], tmp_path / "mpt-lora-v0-something")
    assert recognise(folder).kind is Kind.FULL


def test_defaults_of_the_first_release(originals):
    first, later = recognise(originals["v1_linear"]), recognise(originals["v15_bin"])
    assert first.projector_type == "linear"
    assert first.extra_tokens == ["<im_patch>", "<im_start>", "<im_end>"]
    assert (first.pads_to_square, later.pads_to_square) == (False, True)
    assert later.extra_tokens == []
    assert (later.select_layer, later.keeps_cls) == (-2, False)


def test_the_language_models_config_is_its_own(originals):
    config = recognise(originals["v1_linear"]).text_config()
    assert (config.model_type, config.hidden_size, config.vocab_size) == ("llama", 32, config.vocab_size)
    assert not any(key.startswith("mm_") for key in config.to_dict())


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"mm_projector_type": "mlp3x_gelu"}, "mm_projector_type mlp3x_gelu"),
        ({"image_aspect_ratio": "anyres"}, "anyres"),
        ({"image_aspect_ratio": "anyres_max_9", "mm_patch_merge_type": "spatial_unpad"}, "anyres_max_9"),
        ({"image_aspect_ratio": "highres"}, "'highres'; only square or pad is understood"),
        ({"image_aspect_ratio": "crop_split"}, "crop_split"),
        ({"image_aspect_ratio": True}, "image_aspect_ratio true"),
        ({"mm_patch_merge_type": "spatial_unpad"}, "mm_patch_merge_type 'spatial_unpad'; only flat"),
        ({"mm_resampler_type": "qformer"}, "mm_resampler_type 'qformer'"),
        ({"mm_vision_select_feature": "slicefour_patch"}, "slicefour_patch"),
        (
            {"mm_vision_tower_aux": "openclip-convnext"},
            "mm_vision_tower_aux in its config.json, which is not understood",
        ),
        ({"s2": True}, "s2"),
        ({"mm_vision_select_layer": "-2"}, "'mm_vision_select_layer' is '-2'"),
        ({"mm_use_im_start_end": "yes"}, "'mm_use_im_start_end' is 'yes'"),
        ({"mm_vision_tower": 5}, "'mm_vision_tower' is 5"),
        ({"mm_projector_type": ["linear"]}, "'mm_projector_type' is a list"),
        ({"num_attention_heads": "four"}, "'num_attention_heads' is 'four'"),
        ({"rope_scaling": 5}, "cannot be loaded|rope"),
        ({"architectures": [{"a": 1}]}, "'architectures' is a list"),
        ({"tie_word_embeddings": "yes"}, "'tie_word_embeddings' is 'yes'"),
        ({"model_type": "llava_mpt", "architectures": ["LlavaMptForCausalLM"]}, "llava_mpt"),
    ],
)
def test_what_cannot_be_expressed_is_refused(originals, tmp_path, changes, named):
    folder = shutil.copytree(originals["v15_bin"], tmp_path / "copy")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    with pytest.raises(InputError, match=named) as caught:
        recognise(folder)
    assert "\n" not in str(caught.value)


def test_fields_of_later_releases_that_change_nothing_pass(originals, tmp_path):
    folder = shutil.copytree(originals["v15_bin"], tmp_path / "copy")
    config = json.loads((folder / "config.json").read_text())
    later = {
        "mm_patch_merge_type": "flat",
        "mm_vision_tower_lr": 2e-6,
        "mm_tunable_parts": "mm_mlp_adapter",
        "s2": None,
    }
    (folder / "config.json").write_text(json.dumps({**config, **later, "mm_use_im_start_end": None}))
    checkpoint = recognise(folder)
    assert checkpoint.pads_to_square
    assert not checkpoint.wraps_image


def test_a_checkpoint_without_weights_or_projector_is_refused(originals, tmp_path):
    folder = shutil.copytree(originals["projector"], tmp_path / "copy")
    (folder / "mm_projector.bin").unlink()
    with pytest.raises(InputError, match="no weights"):
        recognise(folder)
    torch.save({"model.norm.weight": torch.ones(2)}, folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"lacks model\.mm_projector"):
        recognise(folder)
