"""Loading PEFT LoRA adapters onto a model, with a plain answer when the two do not belong together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava.errors import FailedRunError
from llava.model.adapter_check import check_adapter
from llava.model.files.adapter import (
    CONFIG_FILE,
    build_lora_config,
    has_head,
    is_adapter,
    read_adapter_config,
    read_adapter_weights,
)

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import nn

__all__ = [
    "CONFIG_FILE",
    "MergeError",
    "check_adapter",
    "is_adapter",
    "load_adapter",
    "read_adapter_config",
    "read_adapter_weights",
]


class MergeError(FailedRunError):
    """The merged model does not give the adapter's logits; nothing was written."""


def load_adapter(model: nn.Module, folder: str | Path, base: str, *, trainable: bool = False) -> PeftModel:
    """Put the LoRA adapter in `folder` onto `model`, once it is known to be whole and the model's.

    An adapter that was trained with more tokens than its base has brings its own embeddings: the model's are resized
    to them.

    Args:
        model: The base model, with its head.
        folder: Adapter folder.
        base: Name of the base, for error messages.
        trainable: Whether to go on training it.

    Returns:
        The PEFT model around `model`; `merge_and_unload()` bakes the adapter in.

    Raises:
        InputError: When the adapter is damaged, incomplete, without effect, or belongs to another base.
    """
    from peft import PeftModel

    from llava.model.failures import explain_loading
    from llava.model.quiet import quiet_transformers

    rows = check_adapter(model, folder, base)
    config = build_lora_config(folder, with_head=has_head(model))
    config.inference_mode = not trainable
    with quiet_transformers(), explain_loading(f"adapter {folder}", "copy the folder again"):
        if rows is not None:
            resizable: Any = model
            resizable.resize_token_embeddings(rows, mean_resizing=False)
        return PeftModel.from_pretrained(model, str(folder), config=config, is_trainable=trainable)
