"""Where a head on states lies, and what can be said of it before a model is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llava.errors import InputError
from llava.model.embedded.stack import ASSETS, EMBEDDED
from llava.model.files.model import read_model_config
from llava.model.hub import fetch
from llava.model.identity import Checkpoint, identify_checkpoint
from llava.protector.states.config import CONFIG_NAME, WEIGHTS_NAME, WHAT, StateHeadConfig

SHIPPED = ASSETS / "state_head"


def find_head(path: str) -> Path:
    """Return the folder of a head: `embedded`, a folder or a hub id.

    Raises:
        InputError: When there is none.
    """
    if path != EMBEDDED:
        return fetch(path, WHAT, "check the path or the hub id", [CONFIG_NAME, WEIGHTS_NAME])
    if not SHIPPED.is_dir():
        raise InputError(f"this installation carries no embedded {WHAT} ({SHIPPED}); reinstall it or give a path")
    return SHIPPED


def check_head(path: str, model: Checkpoint | None) -> Checkpoint:
    """Check, without loading weights, that a head is there and can be a model's, and describe it.

    Args:
        path: `embedded`, a folder or a hub id.
        model: The model, whose config is looked at where it lies in a folder.

    Raises:
        InputError: When the head is missing or damaged, or is of a model of other sizes.
    """
    folder = find_head(path)
    config = StateHeadConfig.load(folder)
    if not (folder / WEIGHTS_NAME).is_file():
        raise InputError(f"{WHAT} {folder} has no {WEIGHTS_NAME}; give the folder of a trained head")
    if model is not None and (Path(model.path) / "config.json").is_file():
        text = read_model_config(Path(model.path)).get("text_config")
        # Original LLaVA checkpoints, and models that keep these fields elsewhere, are looked at once they are loaded.
        if isinstance(text, dict) and {"hidden_size", "num_hidden_layers", "model_type"} <= set(text):
            check_sizes(config, text, f"{WHAT} {path}", model.name)
    return identify_checkpoint(path, str(folder))


def check_sizes(config: StateHeadConfig, text: Any, head: str, model: str) -> None:
    """Refuse a language model of other sizes or another kind than a head was trained on.

    Args:
        config: The head's.
        text: Config of the language model, an object or a mapping.
        head: The head, for the message.
        model: The model, for the message.

    Raises:
        InputError: Naming what differs.
    """
    for name, field in (("model_type", "model_type"), ("num_layers", "num_hidden_layers"), ("hidden_size",) * 2):
        own = text.get(field) if isinstance(text, dict) else getattr(text, field, None)
        if own != getattr(config, name):
            raise InputError(
                f"{head} was trained on {config.model} ({name} {getattr(config, name)}) and does not fit model {model} "
                f"({own}); train a head on this model"
            )
