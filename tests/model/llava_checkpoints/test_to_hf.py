"""The pieces of writing the HF-native form."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from torch.nn.functional import linear
from transformers import AutoTokenizer, LlavaForConditionalGeneration

from llava.errors import InputError
from llava.model.files.tensors import iter_tensors, weight_files
from llava.model.llava_checkpoints.convert import convert_checkpoint
from llava.model.llava_checkpoints.format import recognise
from llava.model.llava_checkpoints.parity import logit_difference
from llava.model.llava_checkpoints.source import OriginalSource
from llava.model.llava_checkpoints.to_hf import hf_tensors, write_hf
from tests.model.damage import edit_json
from tests.model.original_checkpoints import HIDDEN, write_shards, write_tower, write_v15


def test_names_are_those_of_released_files():
    one = torch.ones(2, 3)
    assert [name for name, _ in hf_tensors("mlp2x_gelu", "model.mm_projector.2.weight", one)] == [
        "multi_modal_projector.linear_2.weight"
    ]
    assert [name for name, _ in hf_tensors("linear", "model.layers.0.x", one)] == ["language_model.model.layers.0.x"]
    tower = "model.vision_tower.vision_tower.encoder.x"
    assert [name for name, _ in hf_tensors("linear", tower, one)] == ["vision_tower.vision_model.encoder.x"]


def test_a_linear_projector_gets_an_identity_behind_it():
    written = dict(hf_tensors("linear", "model.mm_projector.weight", torch.ones(2, 3)))
    assert torch.equal(written["multi_modal_projector.linear_2.weight"], torch.eye(2))
    assert torch.equal(written["multi_modal_projector.linear_2.bias"], torch.zeros(2))


def test_the_linear_projector_computes_bit_for_bit_the_same(originals, tmp_path):
    write_hf(OriginalSource(recognise(originals["v1_linear"])), tmp_path)
    model = LlavaForConditionalGeneration.from_pretrained(tmp_path)
    features = torch.randn(7, 24)
    original = torch.load(originals["v1_linear"] / "pytorch_model.bin", weights_only=True)
    weight, bias = (original[f"model.mm_projector.{name}"] for name in ("weight", "bias"))
    with torch.inference_mode():
        assert torch.equal(model.model.multi_modal_projector(features), linear(features, weight, bias))


def test_embeddings_of_picture_tokens_go_to_their_rows(originals, tmp_path):
    source = OriginalSource(recognise(originals["projector_tokens"]))
    write_hf(source, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    embeddings = LlavaForConditionalGeneration.from_pretrained(tmp_path).get_input_embeddings().weight
    for row, token in enumerate(("<im_start>", "<im_end>")):
        id_ = tokenizer.convert_tokens_to_ids(token)
        assert torch.equal(embeddings[id_], source.trained["model.embed_tokens.weight"][row])
    assert embeddings.shape[0] == len(tokenizer)


def test_an_identity_projector_passes_features_through(originals, tmp_path):
    tower = write_tower(tmp_path / "clip", width=HIDDEN)
    folder = write_v15(tmp_path / "source", tower, suffix=".safetensors", mm_projector_type="identity")
    weights = {k: v for k, v in iter_tensors(weight_files(folder)) if "mm_projector" not in k}
    for file in folder.glob("model*"):
        file.unlink()
    write_shards(folder, weights, ".safetensors")
    source = OriginalSource(recognise(folder))
    write_hf(source, tmp_path)
    assert logit_difference(source, tmp_path) <= 1e-4
    features = torch.randn(3, HIDDEN)
    model = LlavaForConditionalGeneration.from_pretrained(tmp_path)
    with torch.inference_mode():
        assert torch.equal(model.model.multi_modal_projector(features), features)


def test_one_type_for_all_weights(originals, tmp_path):
    write_hf(OriginalSource(recognise(originals["v15_half"])), tmp_path)
    model = LlavaForConditionalGeneration.from_pretrained(tmp_path, dtype="auto")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float16}
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "float16"


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_a_head_that_repeats_the_embeddings_it_is_tied_to_is_dropped(originals, tmp_path, kind):
    folder = shutil.copytree(originals["v15_safetensors"], tmp_path / "source")
    weights = dict(iter_tensors(weight_files(folder)))
    for file in folder.glob("model*"):
        file.unlink()
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    if kind == "qwen2":
        for layer in range(2):
            for name in "qkv":
                weights[f"model.layers.{layer}.self_attn.{name}_proj.bias"] = torch.ones(HIDDEN)
        edit_json(folder / "config.json", model_type="llava_qwen", architectures=["LlavaQwenForCausalLM"])
    edit_json(folder / "config.json", tie_word_embeddings=True)
    write_shards(folder, weights, ".bin")
    assert convert_checkpoint(folder, tmp_path / "out") <= 1e-4
    model = LlavaForConditionalGeneration.from_pretrained(tmp_path / "out")
    rows = len(weights["model.embed_tokens.weight"])
    assert torch.equal(model.get_output_embeddings().weight[:rows], weights["model.embed_tokens.weight"])
    weights["lm_head.weight"] = weights["lm_head.weight"] + 1
    write_shards(folder, weights, ".bin")
    with pytest.raises(InputError, match="has tie_word_embeddings, and an lm_head"):
        convert_checkpoint(folder, tmp_path / "other")
