"""Loading PEFT LoRA adapters onto a model, with a plain answer when the two do not belong together."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava.errors import FailedRunError, InputError
from llava.files import read_json

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import nn

CONFIG_FILE = "adapter_config.json"
WEIGHT_FILES = ("adapter_model.safetensors", "adapter_model.bin")


class MergeError(FailedRunError):
    """The merged model does not give the adapter's logits; nothing was written."""


def is_adapter(folder: str | Path) -> bool:
    """Tell whether `folder` holds a PEFT adapter."""
    return (Path(folder) / CONFIG_FILE).is_file()


def read_adapter_config(folder: str | Path) -> dict[str, Any]:
    """Read `adapter_config.json`, checking that it describes a LoRA adapter.

    Raises:
        InputError: When the file is missing, corrupt, or of another adapter type.
    """
    path = Path(folder) / CONFIG_FILE
    if not path.is_file():
        raise InputError(f"{folder} has no {CONFIG_FILE}; give the folder of a PEFT adapter")
    config = read_json(path, "adapter config")
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise InputError(f"{path} is not of peft_type LORA; only LoRA adapters can be used")
    return config


def read_adapter_weights(folder: str | Path) -> dict[str, Any]:
    """Read an adapter's tensors (safetensors, or a pickle with `weights_only=True`).

    Raises:
        InputError: When the file is missing, truncated, or not a plain tensor file.
    """
    from pickle import UnpicklingError

    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    for name in WEIGHT_FILES:
        path = Path(folder) / name
        if not path.is_file():
            continue
        try:
            if path.suffix == ".safetensors":
                return load_file(path)
            return torch.load(path, map_location="cpu", weights_only=True)
        except (SafetensorError, UnpicklingError, RuntimeError, EOFError, OSError) as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(f"adapter weights {path} cannot be read ({reason}); copy the file again") from None
    raise InputError(f"{folder} has no adapter weights ({' or '.join(WEIGHT_FILES)}); copy the whole folder")


def check_adapter_fits(model: nn.Module, weights: dict[str, Any], folder: str | Path, base: str) -> None:
    """Check that every adapter tensor has its place, of the right size, in `model`.

    Raises:
        InputError: For an adapter of another base, naming the first layer that differs.
    """
    modules = dict(model.named_modules())
    if not weights:
        raise InputError(f"adapter {folder} holds no tensors; copy the folder again")
    for key, tensor in weights.items():
        name = key.removeprefix("base_model.model.")
        match = re.fullmatch(r"(?P<module>.+?)\.lora_(?P<side>A|B|embedding_A|embedding_B)(\.weight)?", name)
        module_name = match["module"] if match else name.rsplit(".", 1)[0]
        module = modules.get(module_name.replace(".modules_to_save.default", ""))
        if module is None:
            raise InputError(
                f"adapter {folder} does not fit base {base}: the base has no {module_name}; name its own base"
            )
        weight = getattr(module, "weight", None)
        if match is None or weight is None:
            continue
        if match["side"] in ("A", "B"):
            side = match["side"] == "A"
            # Quantized weights are stored packed; the layer's own sizes tell the truth.
            width = getattr(module, "in_features" if side else "out_features", weight.shape[1 if side else 0])
            if tensor.shape[1 if side else 0] != width:
                raise InputError(
                    f"adapter {folder} does not fit base {base}: {module_name} is {width} wide, the adapter wants "
                    f"{tensor.shape[1 if side else 0]}; name the base it was trained on"
                )


def load_adapter(model: nn.Module, folder: str | Path, base: str, *, trainable: bool = False) -> PeftModel:
    """Put the LoRA adapter in `folder` onto `model`.

    Args:
        model: The base model, with its head.
        folder: Adapter folder.
        base: Name of the base, for error messages.
        trainable: Whether to go on training it.

    Returns:
        The PEFT model around `model`; `merge_and_unload()` bakes the adapter in.

    Raises:
        InputError: When the adapter is damaged or belongs to another base.
    """
    from peft import PeftConfig, PeftModel

    from llava.model.quiet import quiet_transformers

    read_adapter_config(folder)
    check_adapter_fits(model, read_adapter_weights(folder), folder, base)
    config = PeftConfig.from_pretrained(str(folder))
    config.inference_mode = not trainable
    with quiet_transformers():
        return PeftModel.from_pretrained(model, str(folder), config=config, is_trainable=trainable)
