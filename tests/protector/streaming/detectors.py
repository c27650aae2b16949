"""Tiny detectors for streams: in every form, and one that has learnt what harm is."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from llava import HarmDetector
from llava.model.views import view_model
from llava.protector.classifier import pad_windows
from llava.protector.text import encode_windows

HARMLESS = "Mix flour, water, salt and yeast, then wait. "
HARMFUL = "Take the numbered list of steps: first, second, third. "
LONGEST_STREAM = 10**6
"""A patience that never ends."""


def vary(detector: HarmDetector, **changes: Any) -> HarmDetector:
    """Return a detector with the same weights and another config."""
    config = dataclasses.replace(detector.config, **changes)
    network = view_model(detector.classifier)
    network.pooling, network.stretches, network.margin = config.pooling, config.stretches, config.stretch_margin
    return HarmDetector(network, detector.tokenizer, config)


def teach(detector: HarmDetector) -> HarmDetector:
    """Return a detector whose head tells the tokens of HARMFUL from those of HARMLESS, by least squares."""
    taught = vary(detector, pooling="mean_response", stretches=(8, 16), stretch_margin=1.0, text_form="response")
    states, targets = [], []
    for text, target in ((HARMLESS * 3, -3.0), (HARMFUL * 3, 3.0), (HARMLESS + HARMFUL, None)):
        (window,) = encode_windows(taught.tokenizer, taught.config, "", text)
        batch = pad_windows([window], 0)
        with torch.inference_mode():
            states.append(taught.classifier.read(batch["input_ids"], batch["attention_mask"])[0])
        middle = len(taught.tokenizer(HARMLESS)["input_ids"])
        mixed = [-3.0 if i < middle else 3.0 for i in range(len(window.ids))]
        targets += mixed if target is None else [target] * len(window.ids)
    features, wanted = torch.cat(states), torch.tensor(targets).unsqueeze(1)
    head = torch.linalg.solve(features.T @ features + 1e-3 * torch.eye(features.shape[1]), features.T @ wanted)
    network = view_model(taught.classifier)
    network.score = torch.nn.Linear(features.shape[1], 1, bias=False)
    network.score.weight = torch.nn.Parameter(head.T.contiguous())
    return HarmDetector(network, taught.tokenizer, taught.config)


def cut(text: str, sizes: list[int]) -> list[str]:
    """Return a text in pieces of these sizes, used in turn."""
    pieces, start = [], 0
    while start < len(text):
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(text[start : start + size])
        start += size
    return pieces
