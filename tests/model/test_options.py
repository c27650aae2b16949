"""The one list of load options."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from llava.errors import InputError
from llava.eval.judges.base import JudgeOptions
from llava.eval.run.settings import GenerationSettings
from llava.model.options import LOAD_OPTIONS, LoadOptions, collect_options, take_options
from llava.protector.classifier import load_sequence_classifier
from tests.tiny import build_causal_lm


def test_keywords_win_and_unknown_ones_are_refused_by_name():
    options = LoadOptions(device="cpu", dtype="float32")
    assert collect_options(options, {"dtype": "bfloat16"}) == LoadOptions(device="cpu", dtype="bfloat16")
    assert collect_options(None, {}) == LoadOptions()
    with pytest.raises(TypeError, match="'devise'"):
        collect_options(None, {"devise": "cpu"})


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"dtype": "float8"}, "--dtype float8 is unknown"),
        ({"load_in_8bit": True, "load_in_4bit": True}, "exclude each other"),
        ({"load_in_4bit": "yes"}, "--load-in-4bit 'yes' must be true or false"),
        ({"trust_remote_code": 1}, "--trust-remote-code 1 must be true or false"),
    ],
)
def test_wrong_values_are_refused_by_flag(values, told):
    with pytest.raises(InputError, match=told):
        LoadOptions(**values)


def test_paths_and_devices_become_names():
    options = LoadOptions(device=torch.device("cpu"), base=Path("/a"))
    assert (options.device, options.base) == ("cpu", "/a")


def test_what_inherits_them_passes_on_these_alone():
    for settings in (GenerationSettings("m", "o", dtype="float16"), JudgeOptions(detector="d", dtype="float16")):
        assert settings.load_options == LoadOptions(dtype="float16")
        assert collect_options(settings, {}) == LoadOptions(dtype="float16")
    assert take_options({"dtype": "float16", "limit": 3}) == LoadOptions(dtype="float16")
    assert set(LOAD_OPTIONS) < set(GenerationSettings("m", "o").to_dict())


def test_arguments_for_transformers():
    plain = LoadOptions(device="cpu", dtype="bfloat16", attn_implementation="eager").build_arguments()
    assert plain == {"dtype": torch.bfloat16, "trust_remote_code": False, "attn_implementation": "eager"}
    pytest.importorskip("bitsandbytes")
    packed = LoadOptions(device="cpu", load_in_8bit=True).build_arguments(kept_whole=("score",))
    assert packed["device_map"] == {"": torch.device("cpu")}
    assert packed["quantization_config"].llm_int8_skip_modules == ["score"]


@pytest.mark.parametrize("bits", [8, 4])
def test_quantised_weights_are_settled_before_anybody_uses_them(tmp_path, bits):
    """bitsandbytes changes each layer in its first pass, without a lock: that pass is over when the model is there."""
    pytest.importorskip("bitsandbytes")
    base = build_causal_lm(tmp_path / "base", hidden_size=128, intermediate_size=256)
    options = LoadOptions(device="cpu", dtype="float32", **{f"load_in_{bits}bit": True})
    classifier = load_sequence_classifier(str(base), **options.build_arguments(kept_whole=("score",)))
    model = options.place(classifier)
    layers: list[Any] = [
        each for each in model.modules() if isinstance(each, nn.Linear) and not each.weight.is_floating_point()
    ]
    states = [each.state.CB if bits == 8 else each.weight.quant_state for each in layers]
    weights = [each.weight.clone() for each in layers]
    assert len(layers) == 14
    assert all(state is not None for state in states)
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.inference_mode(), ThreadPoolExecutor(4) as pool:
        scores = list(pool.map(lambda _: model(ids).logits.item(), range(8)))
    assert scores == pytest.approx([scores[0]] * 8, abs=1e-6)
    for each, state, weight in zip(layers, states, weights, strict=True):
        assert (each.state.CB if bits == 8 else each.weight.quant_state) is state
        assert torch.equal(each.weight, weight)
