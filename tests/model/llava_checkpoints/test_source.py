"""The parts of an original checkpoint, and how LoRA updates are merged."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from llava.errors import InputError
from llava.model.llava_checkpoints.convert import convert_checkpoint
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


def test_a_rank_stabilised_lora_is_added_at_alpha_over_the_root_of_its_rank(copy, originals, tmp_path):
    folder = copy("lora")
    edit(folder, "adapter_config.json", use_rslora=True)
    base = dict(OriginalSource(recognise(originals["projector"])).tensors())
    merged = dict(OriginalSource(recognise(folder)).tensors())
    adapter = torch.load(folder / "adapter_model.bin", weights_only=True)
    for module in ("model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"):
        a, b = (adapter[f"base_model.model.{module}.lora_{side}.weight"] for side in "AB")
        # lora_alpha 8 over the root of rank 4.
        torch.testing.assert_close(merged[f"{module}.weight"], base[f"{module}.weight"] + 4.0 * b @ a)
    assert convert_checkpoint(folder, tmp_path / "out") <= 1e-4


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


def test_a_projector_that_was_frozen_is_the_bases(copy, originals, tmp_path):
    """Trained on a whole LLaVA; nothing but the LoRA was learned."""
    folder = copy("lora")
    torch.save({}, folder / "non_lora_trainables.bin")
    whole = shutil.copytree(originals["v15_bin"], tmp_path / "whole")
    tensors = dict(OriginalSource(recognise(folder), base=str(whole)).tensors())
    base = dict(OriginalSource(recognise(whole)).tensors())
    for name in ("0.weight", "0.bias", "2.weight", "2.bias"):
        assert torch.equal(tensors[f"model.mm_projector.{name}"], base[f"model.mm_projector.{name}"])
    assert not torch.equal(
        tensors["model.layers.0.self_attn.q_proj.weight"], base["model.layers.0.self_attn.q_proj.weight"]
    )
    assert convert_checkpoint(folder, tmp_path / "out", base=str(whole)) <= 1e-4
    with pytest.raises(InputError, match=r"missing: model\.mm_projector"):
        convert_checkpoint(folder, tmp_path / "none", base=str(originals["lora"].parent / "base"))


def spoil(folder, file, change):
    weights = torch.load(folder / file, weights_only=True)
    torch.save(change(weights), folder / file)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda w: {k: v for k, v in w.items() if "layers.1." not in k}, r"incomplete: it lacks model\.layers\.1\."),
        (lambda w: {k: v[:2] if "lora_A" in k else v[:, :2] for k, v in w.items()}, "has rank 2, its config says 4"),
        (lambda w: {k: v * 0 if "lora_B" in k else v for k, v in w.items()}, "is neutral"),
        (lambda w: {k: v * 0 if "lora_A" in k else v for k, v in w.items()}, "is all zero"),
        (lambda w: {k: v * float("nan") for k, v in w.items()}, "not finite"),
        (lambda w: {k: v.to(torch.int8) for k, v in w.items()}, "as int8"),
        (lambda w: {k: v.flatten() for k, v in w.items()}, r"has shape \[\d+\]"),
    ],
)
def test_an_update_that_is_not_whole_is_refused(copy, change, named):
    folder = copy("lora")
    spoil(folder, "adapter_model.bin", change)
    with pytest.raises(InputError, match=named):
        list(OriginalSource(recognise(folder)).tensors())


@pytest.mark.parametrize("field", [{"r": "4"}, {"r": 0}, {"lora_alpha": 0}, {"target_modules": ["nothing"]}], ids=str)
def test_a_config_that_does_not_fit_its_update_is_refused(copy, field):
    folder = copy("lora")
    edit(folder, "adapter_config.json", **field)
    with pytest.raises(InputError, match=r"lora"):
        list(OriginalSource(recognise(folder)).tensors())


def test_names_of_a_state_dict_are_read(copy, originals):
    folder = copy("lora")
    spoil(folder, "adapter_model.bin", lambda w: {k.replace(".weight", ".default.weight"): v for k, v in w.items()})
    first, second = (dict(OriginalSource(recognise(path)).tensors()) for path in (originals["lora"], folder))
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda w: {k: v.to(torch.int8) for k, v in w.items()}, "whole numbers"),
        (lambda w: {k: v / 0 for k, v in w.items()}, "not finite"),
    ],
)
def test_other_trained_weights_must_be_numbers(copy, change, named):
    folder = copy("lora")
    spoil(folder, "non_lora_trainables.bin", change)
    with pytest.raises(InputError, match=rf"non_lora_trainables\.bin: .*mm_projector.* {named}"):
        list(OriginalSource(recognise(folder)).tensors())


def test_a_layer_that_the_tower_lacks_is_named(copy):
    folder = copy("v15_bin")
    edit(folder, "config.json", mm_vision_select_layer=-9)
    with pytest.raises(InputError, match="takes layer -9 of a vision tower that has 3"):
        _ = OriginalSource(recognise(folder)).tower_config
