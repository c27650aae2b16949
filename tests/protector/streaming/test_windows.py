"""Which networks can go on from a cache."""

import pytest
import torch
from transformers import AutoModelForSequenceClassification, Gemma2Config, GPT2Config, MistralConfig

from llava.protector.classifier import HarmClassifier
from llava.protector.streaming.windows import WindowState, can_resume

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "vocab_size": 64, "num_labels": 1}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0}


def build(config):
    torch.manual_seed(0)
    return HarmClassifier(AutoModelForSequenceClassification.from_config(config).eval(), "mean")


CONFIGS = [
    MistralConfig(**SIZES, **HEADS, sliding_window=5),
    Gemma2Config(**SIZES, **HEADS, sliding_window=5),
    GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=64, num_labels=1, pad_token_id=0),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.model_type)
def test_parts_read_as_the_whole_in_other_families_too(config):
    """Two of them attend to the last five tokens alone in some layers; a cut must not lose what those need."""
    network = build(config)
    assert can_resume(network)
    ids = torch.randint(1, 64, (40,), generator=torch.Generator().manual_seed(1)).tolist()
    state = WindowState(network)
    for part in (ids[:7], ids[:20], [*ids[:12], 5, 5, 5], ids[:30], ids[:13], ids):
        state.follow(part)
        assert len(state.logits) == len(part)
    row = torch.tensor([ids])
    with torch.inference_mode():
        whole = network.score_tokens(row, torch.ones_like(row))[0].double()
    assert (state.logits - whole).abs().max() < 1e-5


def test_a_network_that_looks_ahead_cannot(detector):
    from tests.protector.streaming.detectors import vary

    changed = vary(detector, pooling="mean")
    assert can_resume(changed.classifier)
    for layer in changed.classifier.backbone.layers:
        layer.register_forward_pre_hook(lambda module, args: (args[0] + args[0].mean(1, keepdim=True), *args[1:]))
    other = vary(changed, pooling="mean")  # a network of its own, its hooks those of now
    assert not can_resume(other.classifier)
