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
    from peft import get_peft_model

    return get_peft_model(model, build_lora_config(model, arguments, task_type, head, exclude))


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
