"""What can be said of a model's folder before it is loaded: its config, and the headers of its weight files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llava.errors import InputError
from llava.fields import Fields
from llava.files import read_json
from llava.model.files.tensors import open_tensors, weight_files

REMEDY = "fetch the model again"
CONFIG_NAME = "config.json"
SIZES = {
    **dict.fromkeys(("hidden_size", "intermediate_size", "projection_dim", "n_embd", "d_model"), 1 << 20),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "num_layers"), 1000),
    **dict.fromkeys(("num_attention_heads", "num_key_value_heads", "n_head", "head_dim"), 1 << 14),
    **dict.fromkeys(("vocab_size",), 1 << 24),
    **dict.fromkeys(("image_size", "patch_size", "mm_hidden_size"), 1 << 16),
    **dict.fromkeys(("max_position_embeddings", "n_positions"), 1 << 30),
}
"""Fields that say how large a model is, and what none exceeds: a slip of the file would fill the memory."""
PARTS = ("text_config", "vision_config")


def read_model_config(folder: Path, what: str = "model config") -> dict[str, Any]:
    """Return a model's config.json, those fields checked that every model has.

    Args:
        folder: The model's folder.
        what: What the file is, for messages.

    Raises:
        InputError: When it is missing or no object, or a field has another type or is far too large.
    """
    path = folder / CONFIG_NAME
    return check_model_config(read_json(path, what), f"{what} {path}")


def check_model_config(config: Any, where: str) -> dict[str, Any]:
    """Return the content of a config.json when the fields that every model has are sound.

    Args:
        config: What a reader returned.
        where: The file, for messages.

    Raises:
        InputError: When it is no object, or a field has another type or is far too large.
    """
    fields = Fields(config, where, REMEDY)
    _check_fields(fields)
    for part in PARTS:
        if config.get(part) is not None:
            _check_fields(fields.inner(part))
    return dict(config)


def _check_fields(fields: Fields) -> None:
    """Check the fields of a config, or of a part of one."""
    fields.text("model_type", None)
    fields.texts("architectures", None)
    fields.text("_name_or_path", None)
    for name, most in SIZES.items():
        # Some towers give height and width, some models a size for each layer.
        if isinstance(fields.values.get(name), list):
            fields = Fields({**fields.values, name: None}, fields.where, fields.remedy)
        fields.integer(name, None, least=0 if name == "intermediate_size" else 1, most=most)


def check_model_files(folder: Path, what: str = "model") -> dict[str, Any]:
    """Check a model's config and the headers of its weight files, in milliseconds, and return the config.

    transformers loads whole numbers into a network as they are, and its results would look like results.

    Args:
        folder: The model's folder.
        what: What it is, for messages.

    Raises:
        InputError: When the config is unsound, a weight file is absent or damaged, or weights are whole numbers
            though the config names no quantization.
    """
    config = read_model_config(folder, f"{what} config")
    for file in weight_files(folder):
        opened = open_tensors(file)
        for key in opened.keys:
            if key.endswith(".weight") and not opened.is_floating(key) and not config.get("quantization_config"):
                raise InputError(
                    f"{what} {folder} holds {key} as {opened.kind(key)}, though its config.json names no quantization; "
                    "fetch the model in floating point"
                )
    return config
