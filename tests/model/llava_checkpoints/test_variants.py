"""Original checkpoints that differ from the released ones in a field or in the size of their vocabulary."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from PIL import Image

from llava.model.files.tensors import iter_tensors, weight_files
from llava.model.llava_checkpoints.convert import convert_checkpoint
from llava.model.llava_checkpoints.format import recognise
from llava.model.llava_checkpoints.parity import logit_difference
from llava.model.llava_checkpoints.source import OriginalSource
from llava.model.loading import load_mllm
from tests.model.damage import edit_json
from tests.model.original_checkpoints import HIDDEN, LANGUAGE, write_shards
from tests.tiny import build_tokenizer

PICTURE = Image.linear_gradient("L").convert("RGB").resize((60, 30))
VOCABULARY = ("model.embed_tokens.weight", "lm_head.weight")


@pytest.fixture
def source(originals, tmp_path):
    return shutil.copytree(originals["v15_safetensors"], tmp_path / "source")


def read_config(folder):
    return json.loads((folder / "config.json").read_text())


def rewrite(folder, weights):
    for file in folder.glob("model*"):
        file.unlink()
    write_shards(folder, weights, ".safetensors")


def convert(folder, output):
    """Convert a checkpoint, which proves its logits, and load the result."""
    assert convert_checkpoint(folder, output) <= 1e-4
    return load_mllm(output, device="cpu", dtype="float32")


def count_positions(model):
    return model.encode(["Hi"], [PICTURE])["input_ids"].eq(model.model.config.image_token_id).sum()


def test_a_qwen2_whose_vocabulary_is_padded_keeps_its_rows(source, tmp_path):
    """As Qwen2 comes: more rows than its tokenizer has tokens, biases at three matrices, and no SentencePiece."""
    (source / "tokenizer.model").unlink()
    build_tokenizer().save_pretrained(source)
    tokens, rows = len(build_tokenizer()), len(build_tokenizer()) + 100
    generator = torch.Generator().manual_seed(0)
    weights = dict(iter_tensors(weight_files(source)))
    weights |= {name: torch.randn(rows, HIDDEN, generator=generator) for name in VOCABULARY}
    for layer in range(LANGUAGE["num_hidden_layers"]):
        for name in "qkv":
            weights[f"model.layers.{layer}.self_attn.{name}_proj.bias"] = torch.randn(HIDDEN, generator=generator)
    rewrite(source, weights)
    edit_json(source / "config.json", model_type="llava_qwen", architectures=["LlavaQwenForCausalLM"], vocab_size=rows)
    model = convert(source, tmp_path / "out")
    assert model.model.config.text_config.model_type == "qwen2"
    assert model.model.config.text_config.vocab_size == rows
    assert model.model.config.image_token_id == tokens
    written = dict(iter_tensors(weight_files(tmp_path / "out")))
    for name in VOCABULARY:
        assert torch.equal(written[f"language_model.{name}"], weights[name])
    assert len(model.generate(["Hi", "Hi"], [PICTURE, None], max_new_tokens=4)) == 2


def test_a_tokenizer_with_more_tokens_than_the_embeddings_have_rows(source, tmp_path):
    """As Vicuna comes with a `<pad>` that was added to its tokenizer alone: the rows that lack are the others' mean."""
    rows = read_config(source)["vocab_size"]
    (source / "added_tokens.json").write_text(json.dumps({"<pad>": rows, "<more>": rows + 1}))
    model = convert(source, tmp_path / "out")
    ids = [model.tokenizer.convert_tokens_to_ids(token) for token in ("<pad>", "<more>", "<image>")]
    assert ids == [rows, rows + 1, rows + 2]
    embeddings = model.model.get_input_embeddings().weight
    assert len(embeddings) == len(model.tokenizer) == rows + 3
    for row in ids:
        torch.testing.assert_close(embeddings[row], embeddings[:rows].mean(dim=0))
    assert len(model.generate(["Hi <more>", "Hi"], [PICTURE, None], max_new_tokens=4)) == 2


def test_the_towers_last_layer_with_its_first_position(source, tmp_path):
    plain = convert(source, tmp_path / "plain")
    edit_json(source / "config.json", mm_vision_select_layer=-1, mm_vision_select_feature="cls_patch")
    model = convert(source, tmp_path / "out")
    config = model.model.config
    assert (config.vision_feature_layer, config.vision_feature_select_strategy) == (-1, "full")
    assert (count_positions(plain), count_positions(model)) == (4, 5)
    assert len(model.generate(["Hi", "Hi"], [PICTURE, None], max_new_tokens=4)) == 2


@pytest.mark.parametrize(
    "scaling", [{"type": "linear", "factor": 2.0}, {"rope_type": "dynamic", "factor": 4.0}], ids=["linear", "dynamic"]
)
def test_scaled_positions_stay_scaled(source, tmp_path, scaling):
    """A LLaVA for longer texts: left out, its positions would be others and its answers too."""
    convert_checkpoint(source, tmp_path / "plain")
    # Short enough for the probe to be longer, from where on the dynamic kind scales.
    edit_json(source / "config.json", rope_scaling=scaling, max_position_embeddings=8)
    convert(source, tmp_path / "out")
    kept = read_config(tmp_path / "out")["text_config"]
    kept = kept.get("rope_parameters") or kept["rope_scaling"]
    kind = scaling.get("type") or scaling["rope_type"]
    assert (kept["factor"], kept.get("rope_type") or kept["type"]) == (scaling["factor"], kind)
    assert logit_difference(OriginalSource(recognise(source)), tmp_path / "plain") > 1e-2
