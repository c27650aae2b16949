"""Tiny heads on the states of tiny models."""

from __future__ import annotations

from pathlib import Path

import torch

from llava.model.answering.states import find_layers
from llava.model.loading import load_mllm
from llava.protector.states.config import Cascade, StateHeadConfig
from llava.protector.states.head import StateHead
from llava.protector.states.samples import sample_weights


def build_state_head(folder: Path, model: Path, cascade: Cascade | None = None, **changes) -> Path:
    """Save a head with random weights for a model into `folder`; `changes` are those of its config."""
    loaded = load_mllm(model, device="cpu", dtype="float32")
    text = loaded.model.config.get_text_config(decoder=True)
    values = {
        "model": str(model),
        "model_type": text.model_type,
        "num_layers": len(find_layers(loaded.model)),
        "hidden_size": text.hidden_size,
        "layer": 1,
        "cascade": cascade,
        **changes,
    }
    torch.manual_seed(0)
    config = StateHeadConfig(**values)
    head = StateHead(config, torch.randn(1, text.hidden_size) * 5, 0.0, sample_weights(loaded.model, config.layer))
    head.save(folder)
    return folder
