"""One language model in memory: the guard on the model's own weights gives what a guard with copies of them gives."""

from __future__ import annotations

import logging
import random
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from llava import Detoxifier, HarmDetector, Protector, build_guard, load_mllm
from llava.errors import InputError
from llava.model.backbone import Backbone, SharingError, offer_backbone
from llava.model.language_model import language_model_folder
from llava.model.views import LowRankLinear
from tests.tiny import build_causal_lm, build_llava
from tests.tiny_adapters import build_detector_adapter, build_detoxifier_adapter

PROMPTS = ["How?", "Why does bread rise?", "What is in the image?", "List the steps."]
RESPONSES = ["Mix flour, water and yeast. " * 3, "No.", "1. first 2. second 3. third", "I am sorry."]
WHOLE = {"device": "cpu", "dtype": "float32"}


@pytest.fixture
def mllm(tiny_whole):
    """A LLaVA around `tiny_lm` in memory; it knows one token more, `<image>`."""
    return load_mllm(tiny_whole, **WHOLE)


def rewrite(detoxifier: Detoxifier) -> list[str]:
    """Return rewrites of rows of different lengths, which are padded on the left."""
    return detoxifier.rewrite(PROMPTS, RESPONSES, max_new_tokens=12)


def check_same_scores(path: Path, mllm: Any, **options: Any) -> HarmDetector:
    """Hold a detector on the model's weights against one with a copy of its own; rows are padded on the right."""
    apart = HarmDetector.from_pretrained(path, **WHOLE, **options)
    shared = HarmDetector.from_pretrained(path, backbone=mllm, **options)
    expected = apart.score(RESPONSES, PROMPTS)
    assert shared.score(RESPONSES, PROMPTS) == pytest.approx(expected, abs=1e-5)
    assert shared.score(RESPONSES, PROMPTS, batch_size=1) == pytest.approx(expected, abs=1e-5)
    assert shared.identity == apart.identity
    stream = shared.open_stream(PROMPTS[0])
    for piece in RESPONSES[0].split(" "):
        last = stream.add(piece + " ")
    assert last == pytest.approx(apart.score([RESPONSES[0] + " "], PROMPTS[:1])[0], abs=1e-4)
    return shared


def addresses(model: torch.nn.Module) -> set[int]:
    """Return where the weights of a model lie."""
    return {parameter.data_ptr() for parameter in model.parameters()}


def own_bytes(model: torch.nn.Module, mllm: Any) -> int:
    """Return how much memory a model's weights take beside those of the multimodal model."""
    theirs = addresses(mllm.model)
    own = {each.data_ptr(): each.nbytes for each in model.parameters() if each.data_ptr() not in theirs}
    return sum(own.values())


def read_state(model: torch.nn.Module) -> list[Any]:
    """Return all that a call or a load could change in a model: weights, marks, hooks, attributes, children."""
    state: list[Any] = []
    for name, module in model.named_modules():
        tables = {k: {key: id(v) for key, v in t.items()} for k, t in vars(module).items() if isinstance(t, dict)}
        plain = {k: id(v) for k, v in vars(module).items() if not isinstance(v, dict)}
        state.append((name, type(module), tables, plain))
    for name, parameter in model.named_parameters():
        state.append((name, parameter.requires_grad, parameter.dtype, parameter.data_ptr(), parameter.tolist()))
    return state


def test_scores_and_rewrites_are_those_of_separate_models(mllm, tiny_detector, tiny_detoxifier):
    shared = check_same_scores(tiny_detector, mllm)
    apart = Detoxifier.from_pretrained(tiny_detoxifier, **WHOLE)
    writer = Detoxifier.from_pretrained(tiny_detoxifier, backbone=mllm)
    assert rewrite(writer) == rewrite(apart)
    joint = Protector.from_pretrained(tiny_detector, tiny_detoxifier, backbone=mllm)
    expected = Protector(HarmDetector.from_pretrained(tiny_detector, **WHOLE), apart)
    for found, wanted in zip(joint.guard(PROMPTS, RESPONSES, 8), expected.guard(PROMPTS, RESPONSES, 8), strict=True):
        assert (found.text, found.action) == (wanted.text, wanted.action)
    explained = shared.explain(PROMPTS[0], RESPONSES[0])
    assert [each.start for each in explained] == [
        each.start for each in HarmDetector.from_pretrained(tiny_detector, **WHOLE).explain(PROMPTS[0], RESPONSES[0])
    ]


def test_every_weight_of_the_base_is_the_models_own(mllm, tiny_detector, tiny_detoxifier):
    detector = HarmDetector.from_pretrained(tiny_detector, backbone=mllm)
    detoxifier = Detoxifier.from_pretrained(tiny_detoxifier, backbone=mllm)
    for network, adapter in ((detector.classifier, tiny_detector), (detoxifier.model, tiny_detoxifier)):
        stored = sum(tensor.nbytes for tensor in load_file(adapter / "adapter_model.safetensors").values())
        heads = 2 * 32 * 4  # the trained head, and the fresh one that PEFT keeps below it
        assert stored <= own_bytes(network, mllm) <= stored + heads
        base = [
            p for name, p in network.named_parameters() if not name.endswith((".down", ".up")) and "score" not in name
        ]
        assert len(base) > 15
        assert {each.data_ptr() for each in base} <= addresses(mllm.model)
    # The output layer ends before `<image>`, which the base does not know.
    rows = detoxifier.model.get_output_embeddings().weight.shape[0]
    assert rows == mllm.model.get_output_embeddings().weight.shape[0] - 1


def test_the_model_stays_as_it_is(mllm, tiny_detector, tiny_detoxifier):
    assert any(parameter.requires_grad for parameter in mllm.model.parameters())
    answers = mllm.generate(PROMPTS, max_new_tokens=8)
    ids = torch.arange(4, 20).unsqueeze(0)
    with torch.inference_mode():
        logits = mllm.model(input_ids=ids).logits
    state = read_state(mllm.model)
    protector = Protector.from_pretrained(tiny_detector, tiny_detoxifier, 0.01, backbone=mllm)
    assert any(result.flagged for result in protector.guard(PROMPTS, RESPONSES, 8))
    assert read_state(mllm.model) == state
    with torch.inference_mode():
        assert torch.equal(mllm.model(input_ids=ids).logits, logits)
    assert mllm.generate(PROMPTS, max_new_tokens=8) == answers


@pytest.mark.parametrize("pooling", ["last", "mean", "mean_response"])
def test_fewer_layers(tmp_path, mllm, tiny_lm, pooling):
    adapter = build_detector_adapter(tmp_path, tiny_lm, num_layers=1, pooling=pooling)
    shared = check_same_scores(adapter, mllm)
    assert len(shared.classifier.backbone.layers) == 1
    assert len(mllm.model.model.language_model.layers) == 2


KINDS: dict[str, dict[str, Any]] = {
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "ranks": {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 3.0}},
    "layers": {"layers_to_transform": [1], "target_modules": ["k_proj", "down_proj", "gate_proj"]},
    "biases": {"bias": "all"},
    "lora biases": {"bias": "lora_only", "lora_bias": True, "target_modules": ["q_proj", "v_proj"]},
    "whole norm": {"modules_to_save": ["score", "norm"]},
    "embeddings": {"target_modules": ["q_proj", "embed_tokens"]},
}


@pytest.fixture(scope="module")
def biased(tmp_path_factory) -> tuple[Path, Path]:
    """A base with biases, and a LLaVA around it."""
    lm = build_causal_lm(tmp_path_factory.mktemp("biased"), attention_bias=True)
    return lm, build_llava(tmp_path_factory.mktemp("biased-llava"), language_model=lm)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_of_adapter(tmp_path, biased, kind):
    base, around = biased
    mllm = load_mllm(around, **WHOLE)
    state = read_state(mllm.model)
    if kind != "embeddings":  # PEFT cannot save those of a network without an output layer
        check_same_scores(build_detector_adapter(tmp_path / "detector", base, lora=KINDS[kind]), mllm)
    lora = {name: value for name, value in KINDS[kind].items() if name != "modules_to_save"}
    detoxifier = build_detoxifier_adapter(tmp_path / "detoxifier", base, lora=lora)
    shared, apart = (
        Detoxifier.from_pretrained(detoxifier, backbone=mllm),
        Detoxifier.from_pretrained(detoxifier, **WHOLE),
    )
    assert rewrite(shared) == rewrite(apart)
    assert read_state(mllm.model) == state


@pytest.mark.parametrize(("tied", "more_rows"), [(False, None), (True, None), (False, 3)])
def test_an_output_layer_of_its_own_or_tied(tmp_path, tied, more_rows):
    """With embeddings of the adapter's own those, and no others, are in its memory."""
    base = build_causal_lm(tmp_path / "base", tie_word_embeddings=tied)
    mllm = load_mllm(build_llava(tmp_path / "llava", language_model=base), **WHOLE)
    state = read_state(mllm.model)
    tokens = mllm.model.get_input_embeddings().weight.shape[0] - 1
    rows = tokens + more_rows if more_rows else None
    adapter = build_detoxifier_adapter(tmp_path / "adapter", base, lora={"target_modules": ["q_proj"]}, rows=rows)
    shared, apart = Detoxifier.from_pretrained(adapter, backbone=mllm), Detoxifier.from_pretrained(adapter, **WHOLE)
    assert rewrite(shared) == rewrite(apart)
    head, embeddings = shared.model.get_output_embeddings().weight, shared.model.get_input_embeddings().weight
    assert (head.data_ptr() == embeddings.data_ptr()) is tied
    assert (embeddings.data_ptr() in addresses(mllm.model)) is (rows is None)
    assert len(head) == len(embeddings) == (rows or tokens)
    assert read_state(mllm.model) == state


def test_a_llava_may_be_the_base_itself(tmp_path, monkeypatch, mllm, tiny_whole):
    """Its language model is not written out, nor loaded again."""
    adapter = build_detector_adapter(
        tmp_path / "adapter", language_model_folder(tiny_whole), base_model=str(tiny_whole)
    )
    monkeypatch.setenv("MLLM_PROTECTOR_CACHE", str(tmp_path / "cache"))
    shared = HarmDetector.from_pretrained(adapter, backbone=mllm)
    assert not (tmp_path / "cache").exists()
    apart = HarmDetector.from_pretrained(adapter, **WHOLE)
    assert (tmp_path / "cache").exists()
    assert shared.score(RESPONSES, PROMPTS) == pytest.approx(apart.score(RESPONSES, PROMPTS), abs=1e-5)


def change_weight(folder: Path, name: str) -> None:
    """Move one number of a stored tensor by a little."""
    tensors = load_file(folder / "model.safetensors")
    tensors[name].view(-1)[-1] += 1e-3
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def write_base(folder: Path, case: str) -> Path:
    """Save a base that is nearly `tiny_lm`."""
    changes: dict[str, Any] = {
        "wider": {"intermediate_size": 96},
        "other theta": {"rope_parameters": {"rope_type": "default", "rope_theta": 5000.0}},
        "more layers": {"num_hidden_layers": 3},
    }
    build_causal_lm(folder, seed=1 if case == "other seed" else 0, **changes.get(case, {}))
    names = {"one number": "model.layers.1.mlp.down_proj.weight", "last token": "model.embed_tokens.weight"}
    if case in names:
        change_weight(folder, names[case])
    return folder


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("other seed", "differs from it in model"),
        ("one number", "differs from it in model.layers.1.mlp.down_proj.weight"),
        ("last token", "differs from it in model.embed_tokens.weight"),
        ("wider", "has intermediate_size 64, not 96"),
        ("other theta", "has rope_parameters"),
        ("more layers", "has 2 layers, not 3"),
    ],
)
def test_another_base_is_refused(tmp_path, mllm, caplog, case, reason):
    base = write_base(tmp_path / "base", case)
    adapter = build_detector_adapter(tmp_path / "adapter", base)
    with pytest.raises(SharingError, match=reason) as error:
        HarmDetector.from_pretrained(adapter, backbone=mllm)
    assert str(adapter) in str(error.value)
    assert "leave --share-backbone out" in str(error.value)
    # Where nothing asks for it, such a detector has a model of its own, and only the log says why.
    with caplog.at_level(logging.INFO, logger="llava"):
        alone = HarmDetector.from_pretrained(adapter, backbone=Backbone(mllm, required=False), **WHOLE)
    assert reason in caplog.text
    assert [record.levelname for record in caplog.records if reason in record.getMessage()] == ["INFO"]
    assert alone.score(RESPONSES, PROMPTS) == HarmDetector.from_pretrained(adapter, **WHOLE).score(RESPONSES, PROMPTS)


def test_another_architecture_is_refused(tmp_path, mllm):
    from transformers import MistralConfig, MistralForCausalLM

    from tests.tiny import build_tokenizer, text_config

    tokenizer = build_tokenizer()
    sizes = text_config(len(tokenizer)).to_dict()
    wanted = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    MistralForCausalLM(MistralConfig(num_key_value_heads=2, **{name: sizes[name] for name in wanted})).save_pretrained(
        tmp_path / "base"
    )
    tokenizer.save_pretrained(tmp_path / "base")
    adapter = build_detoxifier_adapter(tmp_path / "adapter", tmp_path / "base")
    with pytest.raises(SharingError, match="is a LlamaModel, not a MistralModel"):
        Detoxifier.from_pretrained(adapter, backbone=mllm)


def test_what_has_a_model_of_its_own_is_refused(mllm, tiny_classifier, tiny_lm, tiny_detector, tiny_guard):
    with pytest.raises(SharingError, match="merged model"):
        HarmDetector.from_pretrained(tiny_classifier, backbone=mllm)
    with pytest.raises(SharingError, match="merged model"):
        Detoxifier.from_pretrained(tiny_lm, backbone=mllm)
    guard = f"guard:{tiny_guard('llama_guard')}"
    with pytest.raises(InputError, match="has a model of its own"):
        build_guard(guard, backbone=mllm, **WHOLE)
    both: Any = build_guard(f"any({tiny_detector}, {guard})", backbone=mllm, **WHOLE)
    assert own_bytes(both.members[0].classifier, mllm) < 20_000 < own_bytes(both.members[1].model, mllm)


def test_a_model_elsewhere_has_nothing_to_offer(mllm):
    assert offer_backbone(mllm, False) is None
    assert offer_backbone(object(), None) is None
    assert offer_backbone(mllm, None).required is False
    assert offer_backbone(mllm, True).required is True
    with pytest.raises(InputError, match="needs the model in this process"):
        offer_backbone(object(), True)


def test_other_numbers_than_asked_for(tiny_whole, tiny_detector, tiny_detoxifier, caplog):
    """Sharing takes the model's type, and says so; what may share does not where the type is another."""
    half = load_mllm(tiny_whole, device="cpu", dtype="bfloat16")
    with caplog.at_level(logging.INFO, logger="llava"):
        shared = HarmDetector.from_pretrained(tiny_detector, backbone=half, **WHOLE)
    assert "is in bfloat16, not in float32" in caplog.text
    assert "WARNING" in {record.levelname for record in caplog.records}
    exact = HarmDetector.from_pretrained(tiny_detector, device="cpu", dtype="bfloat16").score(RESPONSES, PROMPTS)
    assert shared.score(RESPONSES, PROMPTS) == pytest.approx(exact, abs=0.05)
    alone = HarmDetector.from_pretrained(tiny_detector, backbone=Backbone(half, required=False), **WHOLE)
    assert addresses(alone.classifier).isdisjoint(addresses(half.model))
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="llava"):
        HarmDetector.from_pretrained(tiny_detector, device="cpu", dtype="bfloat16", backbone=half)
        writer = Detoxifier.from_pretrained(tiny_detoxifier, backbone=half)
    assert caplog.records == []
    assert len(rewrite(writer)) == len(PROMPTS)


@pytest.mark.parametrize("bits", [8, 4])
def test_a_quantised_base(tmp_path, bits):
    """The adapter's product lies beside packed weights; scores are those of separate models that are quantised."""
    pytest.importorskip("bitsandbytes")
    base = build_causal_lm(tmp_path / "base", hidden_size=128, intermediate_size=256)
    around = build_llava(tmp_path / "llava", language_model=base)
    adapter = build_detector_adapter(tmp_path / "detector", base)
    packed = {"device": "cpu", "dtype": "float32", f"load_in_{bits}bit": True}
    mllm = load_mllm(around, **packed)
    assert Backbone(mllm).is_quantised
    before = {name: parameter.clone() for name, parameter in mllm.model.named_parameters()}
    apart, shared = (
        HarmDetector.from_pretrained(adapter, **packed),
        HarmDetector.from_pretrained(adapter, backbone=mllm),
    )
    expected = apart.score(RESPONSES, PROMPTS)
    assert shared.score(RESPONSES, PROMPTS) == pytest.approx(expected, abs=1e-5)
    whole = HarmDetector.from_pretrained(adapter, **WHOLE).score(RESPONSES, PROMPTS)
    assert whole != pytest.approx(expected, abs=1e-5)
    own = own_bytes(shared.classifier, mllm)
    assert own < 2 * sum(tensor.nbytes for tensor in load_file(adapter / "adapter_model.safetensors").values())
    assert all(torch.equal(parameter, before[name]) for name, parameter in mllm.model.named_parameters())
    # Nobody asked: packed weights give other scores, so the detector has whole ones.
    alone = HarmDetector.from_pretrained(adapter, backbone=Backbone(mllm, required=False), **WHOLE)
    assert alone.score(RESPONSES, PROMPTS) == whole
    # Packed weights cannot be held against files, so the files that they came from are.
    change_weight(base, "model.layers.0.mlp.up_proj.weight")
    with pytest.raises(SharingError, match=r"differs from it in model\.layers\.0\.mlp\.up_proj\.weight"):
        HarmDetector.from_pretrained(adapter, backbone=mllm)


def test_threads_and_a_stream_of_the_base_at_once(tiny_whole, tiny_detector, tiny_detoxifier):
    """Model, detector, detoxifier and guarded streams work on one set of weights at once, as one after another."""
    mllm = load_mllm(tiny_whole, **WHOLE)
    offered = Backbone(mllm)
    detector = HarmDetector.from_pretrained(tiny_detector, backbone=offered)
    detoxifier = Detoxifier.from_pretrained(tiny_detoxifier, backbone=offered)
    assert detoxifier.tokenizer is detector.tokenizer
    protector = Protector(detector, detoxifier, sorted(detector.score(RESPONSES, PROMPTS))[1])

    def follow() -> list[str]:
        pieces = (word + " " for word in RESPONSES[0].split(" "))
        return list(protector.guard_stream(PROMPTS[0], pieces, max_new_tokens=8))

    work = [
        lambda: mllm.generate(PROMPTS, max_new_tokens=16),
        lambda: mllm.generate(PROMPTS[:1], max_new_tokens=24, temperature=1.0, seeds=[3]),
        lambda: detector.score(RESPONSES, PROMPTS),
        lambda: detector.score(RESPONSES[2:], PROMPTS[2:], batch_size=1),
        lambda: detoxifier.rewrite(PROMPTS, RESPONSES, max_new_tokens=12),
        lambda: protector.guard(PROMPTS, RESPONSES, 8),
        follow,
    ]
    expected = [call() for call in work]
    state = read_state(mllm.model)
    places = list(range(len(work))) * 4
    random.Random(0).shuffle(places)
    together = threading.Barrier(6)
    before = sys.getswitchinterval()
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda _: together.wait(), range(6)))
        sys.setswitchinterval(5e-6)
        try:
            found = list(pool.map(lambda place: work[place](), places))
        finally:
            sys.setswitchinterval(before)
    for place, result in zip(places, found, strict=True):
        assert result == expected[place], place
    assert read_state(mllm.model) == state


def test_a_plain_update_costs_one_product_more(tmp_path, mllm, tiny_lm):
    """A plain update is added where the layer's own product lies; one of another kind stays PEFT's module."""
    plain = HarmDetector.from_pretrained(build_detector_adapter(tmp_path / "plain", tiny_lm), backbone=mllm)
    layers = [each for each in plain.classifier.modules() if isinstance(each, LowRankLinear)]
    assert len(layers) == 6  # three layers of two blocks each
    dora = build_detector_adapter(tmp_path / "dora", tiny_lm, lora={"use_dora": True})
    network = HarmDetector.from_pretrained(dora, backbone=mllm).classifier
    assert not any(isinstance(each, LowRankLinear) for each in network.modules())
