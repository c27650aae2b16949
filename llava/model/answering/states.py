"""What the layers of a model hold while it reads and writes: hidden states, taken from a private view as they go by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from llava.errors import InputError

TakeStates = Callable[[torch.Tensor], None]
"""Gets the states behind a layer, (B, T, H), each time that the layer has run."""


@dataclass(frozen=True)
class Projection:
    """What is kept of a state: its products with a few directions, a handful of numbers instead of thousands."""

    layer: int
    """The states behind so many of the language model's layers."""
    directions: torch.Tensor
    """Float32, (K, H)."""


@dataclass(frozen=True)
class TracedAnswer:
    """An answer, and what was kept of the states of its tokens."""

    text: str
    """The answer, without special tokens."""
    kept: torch.Tensor | None = None
    """Float32, (n, K), one line for each token; None when nothing was to be kept, or not every token was seen."""


def find_layers(model: Any) -> nn.ModuleList:
    """Return the layers of a model's language model, lowest first.

    Args:
        model: A model of `transformers` that generates, or a view of one.

    Raises:
        InputError: When its layers cannot be told from other modules.
    """
    text = model.config.get_text_config(decoder=True)
    depth = getattr(text, "num_hidden_layers", None)
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else model
    found = [
        (name.count("."), module)
        for name, module in decoder.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == depth
    ]
    if not found:
        raise InputError(f"the layers of a {model.config.model_type} model are not found; use a detector instead")
    # The experts of a layer may be as many as there are layers, but lie deeper.
    return min(found, key=lambda item: item[0])[1]


def hook_layer(view: Any, layer: int, take: TakeStates) -> None:
    """Have the states behind a layer handed over, each time that it has run.

    Args:
        view: A private view of a model (`view_model`), never a shared model: the hook stays on it.
        layer: Its number, from 1.
        take: Gets the states.

    Raises:
        InputError: When the model has no such layer.
    """
    layers = find_layers(view)
    if not 1 <= layer <= len(layers):
        raise InputError(f"the model has {len(layers)} layers, and no layer {layer}; use a head of this model's own")

    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        take(output if isinstance(output, torch.Tensor) else output[0])

    layers[layer - 1].register_forward_hook(hook)


class EnoughReadError(Exception):
    """End a forward pass whose upper layers nobody needs."""


class StateTrace:
    """Projections of the states of the tokens that one call of `decode_rows` writes.

    A token's state is there once the token is read, in the step after the one that wrote it. Every step reads one token
    of each row that is left in the batch; the first one reads the prompt.

    Attributes:
        projection: What is kept.
        values: For each row what was kept of its tokens so far, the last position of the prompt first; pieces (n, K).
    """

    def __init__(self, projection: Projection, rows: int):
        """Wait for the first step of so many rows."""
        self.projection = projection
        self.values: list[list[torch.Tensor]] = [[] for _ in range(rows)]
        self._steps: list[torch.Tensor] = []
        self._directions: torch.Tensor | None = None
        self._passes_left = 0

    def attach(self, view: Any, longest: int) -> None:
        """Watch the view that decodes.

        Args:
            view: The view.
            longest: Tokens of the longest answer; once that many are read, the pass ends with `EnoughReadError`.
        """
        self._passes_left = longest + 1  # the prompt's, and one for each token
        hook_layer(view, self.projection.layer, self._take)

    def _take(self, states: torch.Tensor) -> None:
        """Keep what is wanted of the last position, (B, T, H) → (B, K); nothing waits for the device."""
        last = states[:, -1].float()
        if self._directions is None or self._directions.device != last.device:
            self._directions = self.projection.directions.to(last.device).T
        self._steps.append(last @ self._directions)
        self._passes_left -= 1
        if self._passes_left == 0:
            raise EnoughReadError

    def close_round(self, rows: Sequence[int], lengths: Sequence[int]) -> None:
        """Sort the steps of one call of `generate` by row.

        Args:
            rows: Which rows were in it.
            lengths: How many tokens each of them wrote; steps beyond were not for it.
        """
        if self._steps:
            steps = torch.stack(self._steps).cpu()  # (T, B, K)
            for place, (row, length) in enumerate(zip(rows, lengths, strict=True)):
                self.values[row].append(steps[:length, place])
        self._steps = []

    def of_tokens(self, row: int, count: int, spare: int = 0) -> torch.Tensor | None:
        """Return what was kept of the first tokens that a row wrote, (count, K); None when not all of them were seen.

        Args:
            row: Which row.
            count: How many tokens.
            spare: So many of the last may be unseen.
        """
        if not self.values[row]:
            return None
        kept = torch.cat(self.values[row])[1 : count + 1]
        return kept if len(kept) >= count - spare else None


def read_layers(view: Any, inputs: dict[str, Any], layers: Sequence[int]) -> list[torch.Tensor]:
    """Return the states of a batch behind some layers; the layers above the highest do not run.

    The batch goes the way that generation takes a prompt, so positions, pictures and masks are those of an answer that
    is being written.

    Args:
        view: A private view of the model; hooks stay on it.
        inputs: The model's inputs, padded on the left, and the cache of their beginning where that was read already.
        layers: Numbers of the layers, from 1.

    Returns:
        For each layer the states, (B, T, H), of what is not in the cache.
    """
    found: dict[int, torch.Tensor] = {}
    highest = max(layers)

    def keep(layer: int) -> TakeStates:
        def take(states: torch.Tensor) -> None:
            found[layer] = states
            if layer == highest:
                raise EnoughReadError

        return take

    for layer in sorted(set(layers)):
        hook_layer(view, layer, keep(layer))
    try:
        with torch.inference_mode():
            view.generate(**inputs, max_new_tokens=1, do_sample=False, num_beams=1)
    except EnoughReadError:
        return [found[layer] for layer in layers]
    raise RuntimeError("the model did not run the layers that were to be read")
