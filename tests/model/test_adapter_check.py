"""Every reader of adapters refuses one that is not whole, and names the first tensor that is wrong."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from llava.errors import InputError
from llava.model.adapter_check import build_skeleton, check_adapter, check_resumable
from llava.model.adapters import load_adapter
from llava.protector.checkpoints import check_checkpoint
from llava.protector.detector import HarmDetector
from llava.protector.detoxifier import Detoxifier
from llava.protector.merge import merge_adapter
from tests.model.damage import copy_adapter, replaced, without

FIRST = "model.layers.0.self_attn.q_proj"


def infinite(tensor):
    tensor = tensor.clone()
    tensor.view(-1)[0] = float("inf")
    return tensor


TENSORS = {
    "no updates at all": (without("lora_"), rf"is incomplete: it lacks {FIRST}\.lora_A\.weight and 11 more"),
    "a layer without": (without("layers.1."), r"lacks model\.layers\.1\.self_attn\.q_proj\.lora_A\.weight and 5 more"),
    "half a pair": (without("layers.1.mlp.up_proj.lora_B"), r"lacks model\.layers\.1\.mlp\.up_proj\.lora_B\.weight"),
    "a zero factor": (
        replaced("layers.1.mlp.up_proj.lora_A", torch.zeros_like),
        r"up_proj\.lora_A\.weight is all zero",
    ),
    "no effect": (replaced("lora_B", torch.zeros_like), "is neutral: lora_B is zero in all 6 modules"),
    "not a number": (replaced("layers.0.self_attn.v_proj.lora_B", infinite), r"v_proj\.lora_B\.weight .*not finite"),
    "whole numbers": (
        replaced("lora_A", lambda t: (t * 99).to(torch.int8)),
        r"lora_A\.weight as I8, not as floating-point",
    ),
    "another rank": (replaced("lora_", lambda t: t[:2] if len(t) == 4 else t[:, :2]), r"has rank 2, its config says 4"),
    "one dimension": (
        replaced("q_proj.lora_A", torch.flatten),
        r"q_proj\.lora_A\.weight has shape \[128\], not \[4, 32\]",
    ),
    "three dimensions": (replaced("q_proj.lora_A", lambda t: t[None]), r"has shape \[1, 4, 32\]"),
    "a strange module": (
        lambda w: {**w, "base_model.model.model.layers.7.x.weight": torch.ones(2)},
        r"the base has no model\.layers\.7\.x",
    ),
    "an update too many": (
        lambda w: {**w, "base_model.model.model.layers.0.mlp.down_proj.lora_A.weight": torch.ones(4, 64)},
        r"down_proj\.lora_A\.weight, which its config does not name",
    ),
}
HEADS = {
    "no head": (without("score"), r"lacks its head score\.weight"),
    "a head of two": (replaced("score", lambda t: t.repeat(2, 1)), r"score\.weight has shape \[2, 32\], not \[1, 32\]"),
    "an empty head": (replaced("score", torch.zeros_like), r"head score\.weight is all zero"),
    "a head of whole numbers": (replaced("score", lambda t: t.to(torch.int8)), r"score\.weight as I8"),
    "a head of nan": (replaced("score", lambda t: t * float("nan")), r"score\.weight .*not finite"),
}
CONFIGS = {
    "r": ({"r": "8"}, r"'r' is '8', not a whole number"),
    "r of zero": ({"r": 0}, r"'r' is 0, not a whole number of at least 1|'r' is 0, not a whole number from 1"),
    "r of another adapter": ({"r": 8}, "has rank 4, its config says 8"),
    "a flag for a rank": ({"r": True}, r"'r' is true"),
    "alpha of zero": ({"lora_alpha": 0}, r"'lora_alpha' is 0"),
    "infinite alpha": ({"lora_alpha": float("inf")}, r"'lora_alpha' is inf"),
    "no such target": ({"target_modules": ["nothing"]}, "its config cannot be applied"),
    "no target": ({"target_modules": None}, "names no target_modules"),
    "targets of numbers": ({"target_modules": [1, 2]}, "'target_modules' is a list, not a list of texts"),
    "a broken pattern": ({"target_modules": "(["}, "its config cannot be applied"),
    "fewer targets": ({"target_modules": ["q_proj"]}, "does not name"),
    "more targets": ({"target_modules": ["q_proj", "v_proj", "up_proj", "down_proj"]}, r"lacks .*down_proj\.lora_A"),
    "other layers": ({"layers_to_transform": [0]}, r"layers\.1\..* does not name"),
    "layers of texts": ({"layers_to_transform": ["0"]}, "a list of layer numbers"),
    "a rank for a layer": ({"rank_pattern": {"q_proj": 2}}, "has rank 4, its config says 2"),
    "another method": ({"use_dora": True}, r"lacks .*lora_magnitude_vector"),
    "a start that moves the base": ({"init_lora_weights": "pissa"}, "uses init_lora_weights, which is not supported"),
    "layers doubled": ({"layer_replication": [[0, 2], [1, 2]]}, "uses layer_replication"),
    "a task of numbers": ({"task_type": 5}, "'task_type' is 5, not a text"),
}


DAMAGES = {
    **{name: (change, {}, named) for name, (change, named) in {**TENSORS, **HEADS}.items()},
    **{name: (None, fields, named) for name, (fields, named) in CONFIGS.items()},
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_check_before_a_run_refuses(tiny_detector, tmp_path, damage):
    change, fields, named = DAMAGES[damage]
    folder = copy_adapter(tiny_detector, tmp_path / "adapter", change, **fields)
    with pytest.raises(InputError, match=named) as caught:
        check_checkpoint("detector", str(folder))
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("damage", ["a layer without", "no effect", "no head", "a head of whole numbers", "r of zero"])
def test_every_reader_of_a_detector_refuses(tiny_detector, tiny_lm, tmp_path, damage):
    change, fields, named = DAMAGES[damage]
    folder = copy_adapter(tiny_detector, tmp_path / "adapter", change, **fields)
    for read in (
        lambda: HarmDetector.from_pretrained(folder),
        lambda: merge_adapter(str(tiny_lm), str(folder), tmp_path / "merged"),
    ):
        with pytest.raises(InputError, match=named):
            read()
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize("damage", ["a layer without", "no effect", "another rank", "not a number"])
def test_every_reader_of_a_detoxifier_refuses(tiny_detoxifier, tmp_path, damage):
    change, _, named = DAMAGES[damage]
    folder = copy_adapter(tiny_detoxifier, tmp_path / "adapter", change)
    for read in (lambda: check_checkpoint("detoxifier", str(folder)), lambda: Detoxifier.from_pretrained(folder)):
        with pytest.raises(InputError, match=named):
            read()


def test_what_is_whole_passes_in_other_precision_and_with_unknown_fields(tiny_detector, tmp_path):
    plain = HarmDetector.from_pretrained(tiny_detector, dtype="float32").score(["Mix flour."], ["How?"])
    half = copy_adapter(tiny_detector, tmp_path / "half", replaced("", lambda t: t.bfloat16()), made_up_field={"x": 1})
    check_checkpoint("detector", str(half))
    assert HarmDetector.from_pretrained(half, dtype="float32").score(["Mix flour."], ["How?"]) == pytest.approx(
        plain, abs=0.02
    )


def test_without_a_task_type_the_head_is_still_the_adapters(tiny_detector, tmp_path):
    """PEFT alone would leave the base's random head in place."""
    folder = copy_adapter(tiny_detector, tmp_path / "adapter", task_type=None)
    scores = [
        HarmDetector.from_pretrained(f, dtype="float32").score(["Mix."], ["How?"]) for f in (tiny_detector, folder)
    ]
    assert scores[0] == scores[1]
    bare = copy_adapter(tiny_detector, tmp_path / "bare", without("score"), task_type=None, modules_to_save=None)
    with pytest.raises(InputError, match=r"lacks its head score\.weight"):
        HarmDetector.from_pretrained(bare)


@pytest.mark.parametrize(
    "settings",
    [
        {"use_dora": True},
        {"bias": "lora_only"},
        {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"q_proj": 3}},
        {"layers_to_transform": [1]},
        {"target_modules": r".*\.layers\.\d\.mlp\.(up|down)_proj"},
        {"target_modules": ["embed_tokens", "q_proj"]},
        {"modules_to_save": ["lm_head"]},
        {"use_rslora": True, "exclude_modules": ["model.layers.0.self_attn.q_proj"]},
    ],
    ids=str,
)
def test_other_forms_of_lora_are_whole_too(tiny_lm, tmp_path, settings):
    """PEFT's own writer and forward are the yardstick."""
    from peft import PeftModel

    torch.manual_seed(0)
    config = LoraConfig(**{"task_type": "CAUSAL_LM", "r": 4, "target_modules": ["q_proj", "v_proj"], **settings})
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_lm), config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.2)
    model.save_pretrained(tmp_path)
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.inference_mode():
        ours = load_adapter(AutoModelForCausalLM.from_pretrained(tiny_lm), tmp_path, "base").eval()(ids).logits
        theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_lm), tmp_path).eval()(ids).logits
    assert torch.equal(ours, theirs)


def test_the_check_leaves_the_model_alone(tiny_detoxifier, tiny_lm):
    model = AutoModelForCausalLM.from_pretrained(tiny_lm)
    before = {name: (parameter, parameter.requires_grad) for name, parameter in model.named_parameters()}
    assert check_adapter(model, tiny_detoxifier, str(tiny_lm)) is None
    after = {name: (parameter, parameter.requires_grad) for name, parameter in model.named_parameters()}
    assert before.keys() == after.keys()
    assert all(after[name][0] is before[name][0] and after[name][1] == before[name][1] for name in before)


def test_a_skeleton_has_shapes_and_no_memory(tiny_lm):
    model = AutoModelForCausalLM.from_pretrained(tiny_lm)
    skeleton = build_skeleton(model)
    assert {name: p.shape for name, p in skeleton.named_parameters()} == {
        n: p.shape for n, p in model.named_parameters()
    }
    assert {tensor.device.type for tensor in (*skeleton.parameters(), *skeleton.buffers())} == {"meta"}


@pytest.mark.parametrize("bits", [4, 8])
def test_quantized_bases_are_checked_by_their_own_widths(tmp_path, bits):
    pytest.importorskip("bitsandbytes")
    from transformers import BitsAndBytesConfig

    from tests.tiny import build_causal_lm
    from tests.tiny_adapters import build_detoxifier_adapter

    base = build_causal_lm(tmp_path / "base", hidden_size=128, intermediate_size=256)
    adapter = build_detoxifier_adapter(tmp_path / "adapter", base)
    options = BitsAndBytesConfig(load_in_4bit=bits == 4, load_in_8bit=bits == 8)
    packed = AutoModelForCausalLM.from_pretrained(base, quantization_config=options)
    assert check_adapter(packed, adapter, str(base)) is None
    spoilt = copy_adapter(adapter, tmp_path / "spoilt", without("layers.1."))
    with pytest.raises(InputError, match="is incomplete"):
        check_adapter(packed, spoilt, str(base))


def test_a_checkpoint_may_be_neutral_but_not_incomplete(tiny_detector, tiny_lm, tmp_path):
    from tests.model.test_adapters import classifier

    model = load_adapter(classifier(tiny_lm), tiny_detector, str(tiny_lm), trainable=True)
    check_resumable(model, tiny_detector)
    check_resumable(model, copy_adapter(tiny_detector, tmp_path / "new", replaced("lora_B", torch.zeros_like)))
    for number, damage in enumerate(("a layer without", "another rank", "not a number", "a strange module")):
        change, named = TENSORS[damage]
        with pytest.raises(InputError, match=named):
            check_resumable(model, copy_adapter(tiny_detector, tmp_path / str(number), change))
