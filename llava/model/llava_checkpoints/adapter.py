"""PEFT adapters for HF-native LLaVA: finding their base, putting them on, merging them with a self-check.

`llava/train/llava.py --lora` writes them: LoRA on the language model and a projector of their own. Adapters in the
original LLaVA format are another matter, see `source.py`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava.errors import InputError
from llava.files import expand_home
from llava.model.adapters import load_adapter, merge_into
from llava.model.embedded.stack import EMBEDDED
from llava.model.files.adapter import CONFIG_FILE, is_adapter, open_adapter_weights, read_adapter_config
from llava.model.files.model import read_model_config
from llava.model.hub import fetch, locate
from llava.model.llava_checkpoints.format import is_original_config
from llava.places import file_exists

PROTECTOR_FILE = "protector_config.json"
"""What lies beside a detector or detoxifier; `llava/protector/config.py` writes it."""
KEPT_WHOLE = ("model.multi_modal_projector", "model.vision_tower", "lm_head")
"""What quantisation leaves alone under an adapter, which has a projector of its own."""


@dataclass(frozen=True)
class VisionAdapter:
    """A PEFT adapter and the vision-language model that it belongs to."""

    folder: Path
    base: str
    """Folder, hub id or `embedded`."""


def find_adapter(path_or_id: str, base: str | None = None) -> VisionAdapter | None:
    """Return the PEFT adapter that `path_or_id` is; None when it is a whole model.

    Args:
        path_or_id: Folder or hub id.
        base: The model that it belongs to; None takes the one that the adapter records.

    Raises:
        InputError: When it is an adapter of another type than LoRA, or records no base.
    """
    if path_or_id == EMBEDDED:
        return None
    folder = Path(locate(path_or_id))
    is_folder = folder.is_dir()
    if not is_folder:
        remedy = "check the name or the connection"
        folder = fetch(path_or_id, "model", remedy, ["config.json", CONFIG_FILE])
    # An adapter in the original LLaVA format has a config.json too.
    if not is_adapter(folder) or (folder / "config.json").is_file():
        return None
    if not is_folder:
        folder = fetch(path_or_id, "adapter", "check the name or the connection")
    recorded = base or read_adapter_config(folder)["base_model_name_or_path"]
    if not recorded:
        raise InputError(f"adapter {path_or_id} records no base model; give --base")
    if is_intermediate(folder, recorded):
        raise InputError(
            f"adapter {path_or_id} is an intermediate checkpoint of a LoRA in the original LLaVA format, without its "
            "projector; copy config.json and non_lora_trainables.bin of that training into it, and give --base the "
            "model that it was trained on"
        )
    return VisionAdapter(folder, recorded)


def is_intermediate(folder: Path, base: str) -> bool:
    """Tell whether an adapter without a config.json is what the original LLaVA's training saves on its way.

    Its tensors name the language model as the original format does, and the Trainer's state lies beside them, or the
    base is of the original format itself. Adapters of a detector or a detoxifier name it so too, but say what they are.
    """
    keys = open_adapter_weights(folder).keys
    if not any(key.startswith("base_model.model.model.layers.") for key in keys) or (folder / PROTECTOR_FILE).is_file():
        return False
    if read_adapter_config(folder)["task_type"] == "SEQ_CLS":
        return False
    if (folder / "trainer_state.json").is_file() or re.fullmatch(r"checkpoint-\d+", folder.name):
        return True
    config = Path(expand_home(base)) / "config.json"
    return file_exists(config) and is_original_config(read_model_config(config.parent))


def put_on(model: Any, adapter: VisionAdapter, *, merge: bool = True) -> Any:
    """Return `model` with the adapter in force.

    Args:
        model: The base.
        adapter: What goes onto it.
        merge: Add it to the weights; False keeps it beside them, as quantised weights must stay what they are.
    """
    if merge:
        return merge_into(model, adapter.folder, adapter.base)
    return load_adapter(model, adapter.folder, adapter.base).get_base_model()
