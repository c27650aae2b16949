"""The files of a PEFT LoRA adapter: `adapter_config.json`, every field checked, and the file of its tensors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava.errors import InputError
from llava.fields import Fields, describe_value
from llava.files import read_json
from llava.model.failures import explain_loading
from llava.model.files.tensors import TensorFileError, open_tensors

if TYPE_CHECKING:
    from peft import LoraConfig
    from torch import nn

    from llava.model.files.tensors import SafetensorsFile, TorchFile

CONFIG_FILE = "adapter_config.json"
WEIGHT_FILES = ("adapter_model.safetensors", "adapter_model.bin")
LARGEST_RANK = 1 << 15
HEADS = ("score", "classifier")
"""Names of a classifier's head; the adapter of a network with one holds its trained weights."""
FREE_STARTS = (True, False, "gaussian", "orthogonal", "eva")
"""Ways to initialise LoRA that leave the base's weights as they are."""
FOREIGN_FEATURES = (
    *("alora_invocation_tokens", "arrow_config", "kasa_config", "layer_replication", "megatron_config"),
    *("monteclora_config", "target_parameters", "trainable_token_indices", "use_bdlora", "use_qalora", "velora_config"),
)
"""Fields of other methods than LoRA: when one is set, the tensors mean something else."""


def is_adapter(folder: str | Path) -> bool:
    """Tell whether `folder` holds a PEFT adapter."""
    return (Path(folder) / CONFIG_FILE).is_file()


def read_adapter_config(folder: str | Path) -> dict[str, Any]:
    """Read `adapter_config.json`, checking every field that decides what the tensors mean.

    Fields that newer versions of PEFT may add are passed over, as PEFT does.

    Returns:
        The checked fields, by PEFT's names; those that are absent have PEFT's defaults.

    Raises:
        InputError: When the file is missing, corrupt, of another adapter type, or a field has another type.
    """
    path = Path(folder) / CONFIG_FILE
    if not path.is_file():
        raise InputError(f"{folder} has no {CONFIG_FILE}; give the folder of a PEFT adapter")
    return check_adapter_config(read_json(path, "adapter config"), str(path))


def check_adapter_config(content: Any, where: str) -> dict[str, Any]:
    """Return the fields of an `adapter_config.json`; see `read_adapter_config`.

    Args:
        content: What a reader returned.
        where: The file, for messages.
    """
    fields = Fields(content, where, "copy the adapter again")
    if fields.text("peft_type", None) != "LORA":
        raise InputError(f"{where} is not of peft_type LORA; only LoRA adapters can be used")
    start = fields.values.get("init_lora_weights", True)
    foreign = [name for name in FOREIGN_FEATURES if fields.values.get(name)]
    if not (isinstance(start, (bool, str)) and start in FREE_STARTS):
        foreign.append("init_lora_weights")
    if foreign:
        raise InputError(f"{where} uses {foreign[0]}, which is not supported; save it as a plain LoRA adapter")
    return {
        "peft_type": "LORA",
        "task_type": fields.text("task_type", None),
        "base_model_name_or_path": fields.text("base_model_name_or_path", None),
        "r": fields.integer("r", 8, least=1, most=LARGEST_RANK),
        # A scale of zero or less would undo or reverse what was learned.
        "lora_alpha": fields.number("lora_alpha", 8.0, least=1e-6, most=1e9),
        "lora_dropout": fields.number("lora_dropout", 0.0, least=0, most=1),
        "target_modules": _names(fields, "target_modules"),
        "exclude_modules": _names(fields, "exclude_modules"),
        "modules_to_save": fields.texts("modules_to_save", None),
        "layers_to_transform": _layers(fields),
        "layers_pattern": _names(fields, "layers_pattern"),
        "rank_pattern": _pattern(fields, "rank_pattern"),
        "alpha_pattern": _pattern(fields, "alpha_pattern"),
        "bias": fields.text("bias", "none", choices=("none", "all", "lora_only")),
        **{name: fields.flag(name, False) for name in ("fan_in_fan_out", "use_rslora", "use_dora", "lora_bias")},
    }


def _names(fields: Fields, name: str) -> str | list[str] | None:
    """Return a text (a pattern), a list of texts, or None."""
    if isinstance(fields.values.get(name), str):
        return fields.text(name)
    return fields.texts(name, None) or None


def _layers(fields: Fields) -> int | list[int] | None:
    """Return the layers that have an update; None for all."""
    value = fields.values.get("layers_to_transform")
    if not isinstance(value, list):
        return fields.integer("layers_to_transform", None, least=0)
    if not all(isinstance(layer, int) and not isinstance(layer, bool) and layer >= 0 for layer in value):
        raise fields.refuse("layers_to_transform", "a list of layer numbers")
    return value or None


def _pattern(fields: Fields, name: str) -> dict[str, int] | dict[str, float]:
    """Return ranks or alphas that differ from the common one, by module name."""
    inner = Fields(fields.mapping(name, None) or {}, f"{fields.where}, '{name}'", fields.remedy)
    if name == "rank_pattern":
        return {key: inner.integer(key, least=1, most=LARGEST_RANK) for key in inner.values}
    return {key: inner.number(key, least=1e-6, most=1e9) for key in inner.values}


def build_lora_config(folder: str | Path, *, with_head: bool) -> LoraConfig:
    """Return the config that PEFT puts an adapter on with.

    Args:
        folder: Adapter folder.
        with_head: Whether it goes onto a network with a classifier's head: PEFT restores the head by the task type,
            which old configs may lack.

    Raises:
        InputError: When `adapter_config.json` is unsound.
    """
    from peft import LoraConfig, TaskType

    values = read_adapter_config(folder)
    if with_head and values["task_type"] is None:
        values["task_type"] = "SEQ_CLS"
    tasks = [task.value for task in TaskType]
    if values["task_type"] not in (None, *tasks):
        raise InputError(
            f"{Path(folder) / CONFIG_FILE}: 'task_type' is {describe_value(values['task_type'])}, "
            f"not one of {', '.join(tasks)}; copy the adapter again"
        )
    if values["target_modules"] is None:
        raise InputError(f"{Path(folder) / CONFIG_FILE} names no target_modules; copy the adapter again")
    del values["peft_type"]
    # PEFT refuses some fields beside others: a pattern of layers without their numbers.
    with explain_loading(f"adapter config {Path(folder) / CONFIG_FILE}", "copy the adapter again"):
        return LoraConfig(**{name: value for name, value in values.items() if value is not None})


def open_adapter_weights(folder: str | Path) -> SafetensorsFile | TorchFile:
    """Open an adapter's tensors (safetensors, or a pickle with `weights_only=True`); only the header is read.

    Raises:
        InputError: When the file is missing, truncated, or not a plain tensor file.
    """
    for name in WEIGHT_FILES:
        path = Path(folder) / name
        if path.is_file():
            try:
                opened = open_tensors(path)
            except TensorFileError as error:
                raise InputError(
                    f"adapter weights {path} cannot be read ({error.reason}); copy the file again"
                ) from None
            if not opened.keys:
                raise InputError(f"adapter {folder} holds no tensors; copy the folder again")
            return opened
    raise InputError(f"{folder} has no adapter weights ({' or '.join(WEIGHT_FILES)}); copy the whole folder")


def read_adapter_weights(folder: str | Path) -> dict[str, Any]:
    """Read an adapter's tensors; see `open_adapter_weights` for what is raised."""
    opened = open_adapter_weights(folder)
    return {key: opened.tensor(key) for key in opened.keys}


def has_head(model: nn.Module) -> bool:
    """Tell whether a network is a classifier, whose adapter holds the weights of its head."""
    return any(hasattr(model, name) for name in HEADS)
