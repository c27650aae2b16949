"""The parts of an original checkpoint, and how LoRA updates are merged."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from llava.errors import InputError
from llava.model.llava_checkpoints.format import recognise
from llava.model.llava_checkpoints.source import OriginalSource


def edit(folder, file, **changes):
    config = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**config, **changes}))


@pytest.fixture
def copy(originals, tmp_path):
    return lambda name: shutil.copytree(originals[name], tmp_path / name)


def test_a_lora_update_is_added_at_its_scale(originals):
    base = dict(OriginalSource(recognise(originals["projector"])).tensors())
    merged = dict(OriginalSource(recognise(originals["lora"])).tensors())
    adapter = torch.load(originals["lora"] / "adapter_model.bin", weights_only=True)
    module = "model.layers.1.mlp.down_proj"
    a, b = (adapter[f"base_model.model.{module}.lora_{side}.weight"] for side in "AB")
    # lora_alpha 8 over rank 4.
    torch.testing.assert_close(merged[f"{module}.weight"], base[f"{module}.weight"] + 2.0 * b @ a)
    untouched = "model.layers.1.mlp.up_proj.weight"
    assert torch.equal(merged[untouched], base[untouched])


def test_both_spellings_of_the_other_weights_are_read(originals):
    first, second = (dict(OriginalSource(recognise(originals[n])).tensors()) for n in ("lora", "lora_plain_keys"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert "model.mm_projector.2.bias" in first


def test_the_tower_inside_wins(originals):
    inside = dict(OriginalSource(recognise(originals["tower_inside"])).tensors())
    beside = dict(OriginalSource(recognise(originals["v15_bin"])).tensors())
    key = "model.vision_tower.vision_tower.embeddings.class_embedding"
    torch.testing.assert_close(inside[key], 1.5 * beside[key])


def test_the_given_parts_win_over_the_recorded(copy, originals):
    folder = copy("lora")
    edit(folder, "adapter_config.json", base_model_name_or_path="/gone/base")
    edit(folder, "config.json", mm_vision_tower="/gone/tower")
    parts = originals["lora"].parent
    with pytest.raises(InputError, match=r"base language model .* /gone/base does not exist; give --base"):
        OriginalSource(recognise(folder), vision_tower=str(parts / "clip"))
    with pytest.raises(InputError, match=r"vision tower .* /gone/tower does not exist; give --vision-tower"):
        OriginalSource(recognise(folder), base=str(parts / "base"))
    source = OriginalSource(recognise(folder), base=str(parts / "base"), vision_tower=str(parts / "clip"))
    assert source.folders == [folder, parts / "clip", parts / "base"]


def test_a_tower_moved_with_the_checkpoint_is_found(copy, originals):
    folder = copy("v15_bin")
    edit(folder, "config.json", mm_vision_tower="/gone/vision_tower")
    shutil.copytree(originals["v15_bin"].parent / "clip", folder / "vision_tower")
    assert OriginalSource(recognise(folder)).tower == folder / "vision_tower"


def test_nothing_recorded_is_said(copy):
    folder = copy("projector")
    edit(folder, "config.json", _name_or_path="")
    with pytest.raises(InputError, match="is not recorded in its config; give --base"):
        OriginalSource(recognise(folder))


def test_a_base_of_another_shape_or_kind_is_named(copy, tmp_path):
    folder = copy("lora")
    adapter = torch.load(folder / "adapter_model.bin", weights_only=True)
    renamed = {key.replace("layers.1", "layers.7"): value for key, value in adapter.items()}
    torch.save(renamed, folder / "adapter_model.bin")
    with pytest.raises(InputError, match=r"updates model\.layers\.7\..*which the base language model lacks"):
        list(OriginalSource(recognise(folder)).tensors())
    torch.save({"base_model.model.score.weight": torch.ones(1)}, folder / "adapter_model.bin")
    with pytest.raises(InputError, match=r"score\.weight, which is no LoRA weight"):
        list(OriginalSource(recognise(folder)).tensors())
    edit(folder, "adapter_config.json", use_dora=True)
    with pytest.raises(InputError, match="use_dora"):
        list(OriginalSource(recognise(folder)).tensors())


def test_only_clip_towers(copy, tmp_path):
    (tmp_path / "siglip").mkdir()
    (tmp_path / "siglip" / "config.json").write_text('{"model_type": "siglip_vision_model"}')
    with pytest.raises(InputError, match="only CLIP towers"):
        _ = OriginalSource(recognise(copy("v15_bin")), vision_tower=str(tmp_path / "siglip")).tower_config
