"""A few of a model's own weights, kept beside a head: by them it knows the model that it was trained on.

Names and paths say nothing: a model may lie anywhere, in other numbers, converted or merged. Its weights stay nearly
the same through all of that, and are far from those of any other model.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from llava.errors import InputError
from llava.model.answering.states import find_layers

ROWS, COLUMNS = 16, 4
"""Places that are looked at in a matrix."""
MOST_MATRICES = 8
EMBEDDINGS = "embeddings"
FARTHEST = 0.25
"""Relative distance up to which samples are of one model. Four bits a weight move it by 0.1, fine-tuning by less;
samples of two models are at 1.4."""


def list_matrices(model: Any, layer: int) -> dict[str, torch.Tensor]:
    """Return the matrices that are looked at: the embeddings, and one of each of some layers up to the one given.

    Those of a quantised layer are packed, and left out.
    """
    layers = find_layers(model)
    found: dict[str, torch.Tensor] = {EMBEDDINGS: model.get_input_embeddings().weight}
    step = max(1, math.ceil(layer / MOST_MATRICES))
    for number in range(0, layer, step):
        for name, weight in layers[number].named_parameters():
            if weight.ndim == 2 and weight.is_floating_point() and min(weight.shape) > 1:
                found[f"{number + 1}.{name}"] = weight
                break
    return {name: weight for name, weight in found.items() if weight.ndim == 2 and weight.is_floating_point()}


def take_sample(weight: torch.Tensor) -> torch.Tensor:
    """Return some numbers of a matrix, always from the same places, in its upper part: a vocabulary may grow."""
    rows = torch.arange(ROWS, device=weight.device) * max(1, min(weight.shape[0], 512) // ROWS) % weight.shape[0]
    columns = torch.arange(COLUMNS, device=weight.device) * max(1, weight.shape[1] // COLUMNS) % weight.shape[1]
    return weight.detach()[rows][:, columns].flatten().float().cpu()


def sample_weights(model: Any, layer: int) -> dict[str, torch.Tensor]:
    """Return samples of the weights that the states behind a layer depend on, by name.

    Args:
        model: A model of `transformers`.
        layer: The layer.
    """
    return {name: take_sample(weight) for name, weight in list_matrices(model, layer).items()}


def check_samples(model: Any, layer: int, samples: dict[str, torch.Tensor], head: str) -> None:
    """Refuse a model that is not the one that samples are of.

    Args:
        model: A model of `transformers`.
        layer: The layer that the head reads.
        samples: What `sample_weights` returned in training.
        head: The head, for the message.

    Raises:
        InputError: When a sample differs by more than rounding, quantising and fine-tuning explain.
    """
    own = sample_weights(model, layer)
    known = [name for name in samples if name in own and own[name].shape == samples[name].shape]
    if not known:
        raise InputError(f"{head} holds no sample of weights that this model has; train a head on this model")
    for name in known:
        distance = float((own[name] - samples[name]).norm() / samples[name].norm().clamp_min(1e-12))
        if not distance <= FARTHEST:
            raise InputError(f"{head} was trained on another model (weights {name} differ); train a head on this model")
