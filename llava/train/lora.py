"""LoRA (arXiv 2106.09685): which modules get an adapter, and with what settings."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch

from llava.errors import InputError
from llava.train.arguments import ModelArguments

if TYPE_CHECKING:
    from peft import LoraConfig
    from torch import nn


def add_adapter(
    model: Any, arguments: ModelArguments, task_type: str, head: str | None = None, exclude: str | None = None
) -> Any:
    """Return the model to train: frozen with a LoRA adapter, or itself where all weights are trained.

    Args:
        model: The base with its head.
        arguments: Whether and how to adapt.
        task_type: PEFT's `SEQ_CLS` or `CAUSAL_LM`.
        head: Name of a part that is trained in full and saved with the adapter; None when there is none.
        exclude: Pattern of the modules that get no adapter, by their full names; None for none.
    """
    if not arguments.lora:
        return model
    if arguments.init_adapter:
        return continue_adapter(model, arguments.init_adapter, arguments.base, arguments.lora_layers_from)
    from peft import get_peft_model

    return get_peft_model(model, build_lora_config(model, arguments, task_type, head, exclude))


def continue_adapter(model: Any, adapter: str, base: str, first_layer: int = 0) -> Any:
    """Return the model with an adapter that is trained on.

    Args:
        model: The base with its head.
        adapter: Folder or hub id of the adapter.
        base: Name of the base, for messages.
        first_layer: What the adapter holds below this layer stays as it is.

    Raises:
        InputError: When the adapter is damaged or belongs to another base, or holds nothing from that layer on.
    """
    from llava.model.adapters import load_adapter
    from llava.model.hub import fetch

    folder = fetch(adapter, "adapter", "check --init-adapter")
    adapted = load_adapter(model, folder, base, trainable=True)
    above = False
    for name, parameter in adapted.named_parameters():
        layer = re.search(r"\.(\d+)\.", name)
        if parameter.requires_grad and layer:
            parameter.requires_grad_(int(layer.group(1)) >= first_layer)
            above = above or parameter.requires_grad
    if not above:
        raise InputError(
            f"--init-adapter {adapter} holds nothing from layer {first_layer} on; lower --lora-layers-from"
        )
    return adapted


def build_lora_config(
    model: nn.Module, arguments: ModelArguments, task_type: str, head: str | None, exclude: str | None = None
) -> LoraConfig:
    """Return the LoRA config for a model; see `add_adapter`.

    Raises:
        InputError: When a module name fits nothing, or the first layer lies above the last.
    """
    from peft import LoraConfig

    # Linear layers inside the numbered blocks; heads and embeddings are none of them.
    linear = {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and re.search(r"\.\d+\.", name)
        if not (exclude and re.fullmatch(exclude, name))
    }
    targets = sorted(linear)
    if arguments.lora_target_modules != "all-linear":
        targets = [name.strip() for name in arguments.lora_target_modules.split(",")]
    for name in targets:
        if name not in linear:
            raise InputError(f"--lora-target-modules names {name}; this base has {', '.join(sorted(linear))}")
    config: Any = model.config
    layers = config.get_text_config().num_hidden_layers
    if arguments.lora_layers_from >= layers:
        raise InputError(f"--lora-layers-from is {arguments.lora_layers_from}; the model has layers 0 to {layers - 1}")
    return LoraConfig(
        task_type=task_type,
        r=arguments.lora_r,
        lora_alpha=arguments.lora_alpha,
        lora_dropout=arguments.lora_dropout,
        target_modules=targets,
        layers_to_transform=list(range(arguments.lora_layers_from, layers)) if arguments.lora_layers_from else None,
        modules_to_save=[head] if head else None,
        exclude_modules=exclude,
    )
