"""PEFT adapters for HF-native LLaVA: finding their base, putting them on, merging them with a self-check.

`llava/train/llava.py --lora` writes them: LoRA on the language model and a projector of their own. Adapters in the
original LLaVA format are another matter, see `original_source.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava.errors import InputError
from llava.model.adapters import CONFIG_FILE, is_adapter, load_adapter, read_adapter_config
from llava.model.embedded.stack import EMBEDDED
from llava.model.hub import fetch, locate

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
    if not folder.is_dir():
        remedy = "check the name or the connection"
        folder = fetch(path_or_id, "model", remedy, ["config.json", CONFIG_FILE])
    # An adapter in the original LLaVA format has a config.json too.
    if not is_adapter(folder) or (folder / "config.json").is_file():
        return None
    if not Path(path_or_id).expanduser().is_dir():
        folder = fetch(path_or_id, "adapter", "check the name or the connection")
    recorded = base or read_adapter_config(folder).get("base_model_name_or_path")
    if not recorded:
        raise InputError(f"adapter {path_or_id} records no base model; give --base")
    return VisionAdapter(folder, str(recorded))


def put_on(model: Any, adapter: VisionAdapter, *, merge: bool = True) -> Any:
    """Return `model` with the adapter in force.

    Args:
        model: The base.
        adapter: What goes onto it.
        merge: Add it to the weights; False keeps it beside them, as quantised weights must stay what they are.
    """
    adapted = load_adapter(model, adapter.folder, adapter.base)
    return adapted.merge_and_unload() if merge else adapted.get_base_model()
