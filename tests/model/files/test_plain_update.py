"""What a plain adapter holds is what PEFT says that it holds; what is not plain is left to PEFT."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from transformers import AutoModelForCausalLM

from llava.model.adapter_check import PREFIX, expected_shapes
from llava.model.adapters import load_adapter, merge_into, put_beside
from llava.model.files.adapter import build_lora_config
from llava.model.files.plain_update import list_shapes, read_plain_update
from llava.protector.classifier import HarmClassifier, load_sequence_classifier
from tests.tiny_adapters import build_detector_adapter, build_detoxifier_adapter

PLAIN = {
    "usual": {},
    "rslora": {"use_rslora": True, "r": 3},
    "one layer": {"layers_to_transform": 1},
    "some layers": {"layers_to_transform": [0], "target_modules": ["k_proj", "mlp.down_proj"]},
    "output layer": {"target_modules": ["q_proj", "lm_head"]},
}
NAMES = {"detector": "HarmDetector", "detoxifier": "Detoxifier"}
OTHERS = {
    "dora": {"use_dora": True},
    "ranks": {"rank_pattern": {"q_proj": 2}},
    "alphas": {"alpha_pattern": {"q_proj": 2.0}},
    "pattern": {"target_modules": r".*\.q_proj"},
    "excluded": {"exclude_modules": ["0.self_attn.q_proj"]},
    "biases": {"bias": "all"},
    "embeddings": {"target_modules": ["q_proj", "embed_tokens"]},
    "whole": {"modules_to_save": ["norm"]},
}


def load_base(lm):
    return AutoModelForCausalLM.from_pretrained(lm, dtype=torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", sorted(PLAIN))
def test_merging_is_pefts_to_the_last_bit(tmp_path, tiny_lm, kind, dtype):
    folder = build_detoxifier_adapter(tmp_path, tiny_lm, lora=PLAIN[kind])
    base, theirs, ours = (AutoModelForCausalLM.from_pretrained(tiny_lm, dtype=dtype) for _ in range(3))
    expected = load_adapter(theirs, folder, "base").merge_and_unload().state_dict()
    merged = merge_into(ours, folder, "base").state_dict()
    assert merged.keys() == expected.keys()
    assert all(torch.equal(merged[name], value) for name, value in expected.items())
    assert any(not torch.equal(merged[name], value) for name, value in base.state_dict().items())


@pytest.mark.parametrize("kind", sorted(OTHERS))
def test_other_kinds_are_merged_by_peft(tmp_path, tiny_lm, kind):
    folder = build_detoxifier_adapter(tmp_path, tiny_lm, lora=OTHERS[kind])
    expected = load_adapter(load_base(tiny_lm), folder, "base").merge_and_unload().state_dict()
    merged = merge_into(load_base(tiny_lm), folder, "base").state_dict()
    assert all(torch.equal(merged[name], value) for name, value in expected.items())


@pytest.mark.parametrize("part", ["detector", "detoxifier"])
def test_a_shipped_part_is_loaded_without_peft(part):
    """Where bitsandbytes is installed, PEFT's import brings it and a compiler along: four seconds."""
    words = f"import sys, llava; llava.{NAMES[part]}.from_pretrained('embedded'); print('peft' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("kind", sorted(PLAIN))
def test_a_plain_update_is_what_peft_makes_of_its_config(tmp_path, tiny_lm, kind):
    folder = build_detoxifier_adapter(tmp_path, tiny_lm, lora=PLAIN[kind])
    model = load_base(tiny_lm)
    shapes = list_shapes(read_plain_update(folder, model), model, PREFIX)
    assert shapes == expected_shapes(model, build_lora_config(folder, with_head=False), folder, "base")
    ids = torch.arange(4, 24).view(2, 10)
    with torch.inference_mode():
        merged = load_adapter(load_base(tiny_lm), folder, "base").merge_and_unload()(ids).logits
        plain = model(ids).logits
        beside = put_beside(model, folder, "base")(ids).logits
    torch.testing.assert_close(beside, merged, rtol=0, atol=1e-5)
    assert (beside - plain).abs().max() > 1e-3


def test_a_classifier_has_its_head_with_it(tmp_path, tiny_lm):
    folder = build_detector_adapter(tmp_path, tiny_lm)
    model = HarmClassifier(load_sequence_classifier(str(tiny_lm)))
    shapes = list_shapes(read_plain_update(folder, model), model, PREFIX)
    assert shapes[f"{PREFIX}score.weight"] == (1, 32)
    assert shapes == expected_shapes(model, build_lora_config(folder, with_head=True), folder, "base")
    # A config from before tasks were recorded, and one of another task.
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    for task, is_plain in ((None, True), ("CAUSAL_LM", False)):
        path.write_text(json.dumps({**config, "task_type": task}))
        assert (read_plain_update(folder, model) is not None) is is_plain


@pytest.mark.parametrize("kind", sorted(OTHERS))
def test_what_is_not_plain_is_left_to_peft(tmp_path, tiny_lm, kind):
    folder = build_detoxifier_adapter(tmp_path, tiny_lm, lora=OTHERS[kind])
    model = load_base(tiny_lm)
    update = read_plain_update(folder, model)
    assert update is None or list_shapes(update, model, PREFIX) is None
    with torch.inference_mode():
        ids = torch.arange(4, 24).view(2, 10)
        merged = load_adapter(load_base(tiny_lm), folder, "base").merge_and_unload()(ids).logits
        torch.testing.assert_close(put_beside(model, folder, "base")(ids).logits, merged, rtol=0, atol=1e-5)
