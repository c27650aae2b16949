"""Loading PEFT LoRA adapters onto a model, with a plain answer when the two do not belong together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from llava.errors import FailedRunError
from llava.model.adapter_check import PREFIX, check_adapter
from llava.model.files.adapter import (
    CONFIG_FILE,
    build_lora_config,
    has_head,
    is_adapter,
    open_adapter_weights,
    read_adapter_config,
    read_adapter_weights,
)
from llava.model.files.plain_update import list_shapes, read_plain_update

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import nn

__all__ = [
    "CONFIG_FILE",
    "MergeError",
    "check_adapter",
    "is_adapter",
    "load_adapter",
    "merge_into",
    "read_adapter_config",
    "read_adapter_weights",
]


class MergeError(FailedRunError):
    """The merged model does not give the adapter's logits; nothing was written."""


def load_adapter(
    model: nn.Module, folder: str | Path, base: str, *, trainable: bool = False, shared: bool = False
) -> PeftModel:
    """Put the LoRA adapter in `folder` onto `model`, once it is known to be whole and the model's.

    An adapter that was trained with more tokens than its base has brings its own embeddings: the model's are resized
    to them.

    Args:
        model: The base model, with its head.
        folder: Adapter folder.
        base: Name of the base, for error messages.
        trainable: Whether to go on training it.
        shared: Whether the model's weights are another's too, and must stay what they are.

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
        if shared:
            own_replaced(model, folder)
        return PeftModel.from_pretrained(model, str(folder), config=config, is_trainable=trainable)


def own_replaced(model: nn.Module, folder: str | Path) -> None:
    """Give a model memory of its own for each weight that an adapter replaces whole: embeddings, biases.

    PEFT writes those into the weights that it finds.
    """
    from torch import nn

    names = {key.removeprefix(PREFIX).replace(".base_layer.", ".") for key in open_adapter_weights(folder).keys}
    own: dict[int, Any] = {
        id(parameter): nn.Parameter(parameter.detach().clone(), requires_grad=parameter.requires_grad)
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if name in names
    }
    for module in model.modules():
        for name, parameter in module._parameters.items():
            module._parameters[name] = own.get(id(parameter), parameter)


def put_beside(model: Any, folder: str | Path, base: str) -> Any:
    """Put an adapter onto a model beside its weights, which stay what they are, and may be another's too.

    A plain update needs no PEFT; another kind is put on by it.

    Args:
        model: The base model, with its head, whose modules are its own.
        folder: Adapter folder.
        base: Name of the base, for error messages.

    Returns:
        The model, with the adapter in force.

    Raises:
        InputError: As `load_adapter`.
    """
    from llava.model.views import LowRankLinear

    found = read_factors(model, folder, base)
    if found is None:
        return keep_beside(load_adapter(model, folder, base, shared=True))
    for name, factors in found.items():
        replace_module(model, name, LowRankLinear(factors.layer, factors.down, factors.up, factors.scale))
    return model


def merge_into(model: Any, folder: str | Path, base: str) -> Any:
    """Bake an adapter into a model's weights, as PEFT's `merge_and_unload` does, bit by bit.

    A plain update needs no PEFT, whose import takes a second, and several where bitsandbytes is installed.

    Args:
        model: The base model, with its head; its weights are changed.
        folder: Adapter folder.
        base: Name of the base, for error messages.

    Returns:
        The model.

    Raises:
        InputError: As `load_adapter`.
    """
    import torch

    found = read_factors(model, folder, base)
    embeddings = model.get_input_embeddings()
    # What happens to an output layer that shares its weights with the embeddings is PEFT's to say.
    if found is None or any(factors.layer.weight is embeddings.weight for factors in found.values()):
        return load_adapter(model, folder, base).merge_and_unload()
    for factors in found.values():
        weight = factors.layer.weight.data
        down, up = (each.to(weight.device, torch.float32) for each in (factors.down, factors.up))
        weight += (up @ down) * factors.scale  # in half precision the sum is rounded, not the product
    return model


class Factors(NamedTuple):
    """The update of one layer: `scale` times `up` (out, R) times `down` (R, in)."""

    layer: Any
    down: Any
    up: Any
    scale: float


def read_factors(model: Any, folder: str | Path, base: str) -> dict[str, Factors] | None:
    """Return the updates of a plain adapter by the layers' names, and put its head in place; None for another kind.

    Raises:
        InputError: As `load_adapter`.
    """
    check_adapter(model, folder, base)
    update = read_plain_update(folder, model)
    layers = update.find_layers(model) if update else None
    if update is None or layers is None:
        return None
    weights = read_adapter_weights(folder)
    if weights.keys() != (list_shapes(update, model, PREFIX) or {}).keys():
        return None
    if update.head is not None:
        for name, parameter in getattr(model, update.head).named_parameters():
            parameter.data.copy_(weights[f"{PREFIX}{update.head}.{name}"])
    factors = {}
    for name, layer in layers.items():
        down, up = (weights[f"{PREFIX}{name}.lora_{factor}.weight"] for factor in "AB")
        factors[name] = Factors(layer, down, up, update.scale)
    return factors


def keep_beside(adapted: PeftModel) -> Any:
    """Return the model of a PEFT model, its plain updates as a `LowRankLinear` each; others stay PEFT's modules."""
    from peft.tuners.lora.layer import Linear

    from llava.model.views import LowRankLinear

    model: Any = adapted.get_base_model()
    for name, layer in list(model.named_modules()):
        if type(layer) is not Linear or layer.lora_variant or any(layer.lora_bias.values()):
            continue
        (adapter,) = layer.active_adapters
        factors = layer.lora_A[adapter].weight, layer.lora_B[adapter].weight
        replace_module(model, name, LowRankLinear(layer.base_layer, *factors, layer.scaling[adapter]))
    return model


def replace_module(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put another module at a place in a model."""
    parent, _, child = name.rpartition(".")
    model.get_submodule(parent)._modules[child] = module
