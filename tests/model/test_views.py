"""Private views of a shared model."""

from __future__ import annotations

import torch
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from llava.model.views import PackedLinear, keeps_state, view_model
from tests.tiny import text_config

IDS = torch.tensor([[5, 6, 7, 8]] * 5)


def test_a_view_gives_the_models_logits_and_reads_packed_rows(tiny_lm):
    model = AutoModelForCausalLM.from_pretrained(tiny_lm, dtype=torch.float32).eval()
    strides = []
    head = model.get_output_embeddings()
    view = view_model(model)
    packed = view.get_output_embeddings()
    assert isinstance(packed, PackedLinear)
    assert packed.weight is head.weight
    plain = model(IDS, logits_to_keep=1).logits
    product = torch.nn.functional.linear

    def note(input, *rest):
        if rest[0] is head.weight:
            strides.append(input.stride())
        return product(input, *rest)

    torch.nn.functional.linear = note
    try:
        seen = view(IDS, logits_to_keep=1).logits
    finally:
        torch.nn.functional.linear = product
    width = model.config.hidden_size
    assert strides == [(width, width, 1)]
    torch.testing.assert_close(seen, plain)
    assert type(head) is torch.nn.Linear
    assert not head._forward_pre_hooks


def test_what_is_set_in_a_view_stays_there(tiny_lm):
    model = AutoModelForCausalLM.from_pretrained(tiny_lm).eval()
    view = view_model(model)
    view.generation_config = None
    view.model.register_buffer("offsets", torch.zeros(1))
    view.model.layers[0].note = 1
    assert model.generation_config is not None
    assert "offsets" not in dict(model.named_buffers())
    assert not hasattr(model.model.layers[0], "note")


def test_tied_weights_and_hooks_are_the_models(tiny_lm):
    model = LlamaForCausalLM(text_config(64, tie_word_embeddings=True)).eval()
    seen = []
    model.register_forward_hook(lambda *call: seen.append("model's"))
    view = view_model(model)
    assert view.lm_head.weight is view.model.embed_tokens.weight is model.lm_head.weight
    view.register_forward_hook(lambda *call: seen.append("view's"))
    view(IDS)
    assert seen == ["model's", "view's"]
    model(IDS)
    assert seen == ["model's", "view's", "model's"]
    model.to(torch.float64)
    assert view.lm_head.weight.dtype is torch.float64


def test_dynamic_frequencies_are_state():
    still = LlamaForCausalLM(text_config(64))
    scaled = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    moving = LlamaForCausalLM(text_config(64, rope_parameters=scaled, max_position_embeddings=4)).eval()
    assert (keeps_state(still), keeps_state(moving)) == (False, True)
    before = moving.model.rotary_emb.inv_freq
    view_model(moving)(torch.arange(12)[None])
    assert moving.model.rotary_emb.inv_freq is before
    moving(torch.arange(12)[None])
    assert not torch.equal(moving.model.rotary_emb.inv_freq, before)
