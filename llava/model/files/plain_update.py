"""The plainest LoRA adapter, told by its files: two factors beside some linear layers, and a classifier's head.

Nearly every adapter is one, the shipped ones too. What it holds, and where it goes, is known without PEFT, whose import
alone can take seconds. Everything else about an adapter is PEFT's to say.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from llava.model.files.adapter import HEADS, read_adapter_config

if TYPE_CHECKING:
    from torch import nn

LAYER = re.compile(r".*\.[^.]*\.(\d+)\.")
"""How PEFT finds the number of the layer that a module lies in."""
OTHER_KINDS = (
    "exclude_modules",
    "layers_pattern",
    "rank_pattern",
    "alpha_pattern",
    "fan_in_fan_out",
    "use_dora",
    "lora_bias",
)
"""Fields of an adapter's config; one that is set makes it more than plain."""


class PlainUpdate(NamedTuple):
    """A plain update of some linear layers, each of the same rank and scale."""

    targets: tuple[str, ...]
    """Last parts of the layers' names."""
    layers: tuple[int, ...] | None
    """Numbers of the layers of the network that have one; None for all."""
    rank: int
    scale: float
    """What the product of the two factors is multiplied by."""
    head: str | None
    """The module that the adapter brings whole."""

    def find_layers(self, model: nn.Module) -> dict[str, nn.Linear] | None:
        """Return the layers of a network that it updates, by name; None when one of them is not linear, or none is."""
        from torch import nn

        found: dict[str, Any] = {}
        for name, module in model.named_modules():
            if not any(name == target or name.endswith(f".{target}") for target in self.targets):
                continue
            number = LAYER.match(name)
            if self.layers is not None and (number is None or int(number[1]) not in self.layers):
                continue
            if not isinstance(module, nn.Linear):
                return None
            found[name] = module
        return found or None


def read_plain_update(folder: str | Path, model: nn.Module) -> PlainUpdate | None:
    """Return what an adapter's config says of its update; None when it is no plain one for this network.

    Args:
        folder: Adapter folder.
        model: The network that it goes onto; with a head it is a classifier.

    Raises:
        InputError: When `adapter_config.json` is unsound.
    """
    values = read_adapter_config(folder)
    head = next((name for name in HEADS if hasattr(model, name)), None)
    targets, layers = values["target_modules"], values["layers_to_transform"]
    if (
        values["task_type"] not in (None, "SEQ_CLS" if head else "CAUSAL_LM")
        or values["bias"] != "none"
        or any(values[name] for name in OTHER_KINDS)
        or not set(values["modules_to_save"] or ()) <= ({*HEADS} if head else set())
        or not isinstance(targets, list)
        or set(targets) & {*HEADS}
    ):
        return None
    rank = values["r"]
    return PlainUpdate(
        targets=tuple(targets),
        layers=None if layers is None else tuple(layers) if isinstance(layers, list) else (layers,),
        rank=rank,
        scale=values["lora_alpha"] / (math.sqrt(rank) if values["use_rslora"] else rank),
        head=head,
    )


def list_shapes(update: PlainUpdate, model: nn.Module, prefix: str) -> dict[str, tuple[int, ...]] | None:
    """Return the names and shapes of the tensors of such an adapter; None when the network is none for it.

    Args:
        update: What the adapter is.
        model: The network, with its head.
        prefix: What PEFT puts before every name.
    """
    layers = update.find_layers(model)
    if layers is None:
        return None
    shapes: dict[str, tuple[int, ...]] = {}
    for name, layer in layers.items():
        shapes[f"{prefix}{name}.lora_A.weight"] = (update.rank, layer.in_features)
        shapes[f"{prefix}{name}.lora_B.weight"] = (layer.out_features, update.rank)
    if update.head is not None:
        for name, parameter in getattr(model, update.head).named_parameters():
            shapes[f"{prefix}{update.head}.{name}"] = tuple(parameter.shape)
    return shapes
