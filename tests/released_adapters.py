"""Adapters in the files that PEFT 0.4 wrote, as the released detectors and detoxifiers have them."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

RELEASED_BASE = "openlm-research/open_llama_3b_v2"


def to_released_form(folder: Path, task_type: str, modules_to_save: list[str] | None) -> Path:
    """Rewrite an adapter of today as PEFT 0.4 saved it: a pickle, its keys in a config of 0.4, nothing of ours.

    Args:
        folder: The adapter; its files are replaced.
        task_type: `SEQ_CLS` or `CAUSAL_LM`.
        modules_to_save: What the config says; the head is among the weights whatever that is.
    """
    weights = load_file(folder / "adapter_model.safetensors")
    config = json.loads((folder / "adapter_config.json").read_text())
    for path in folder.iterdir():
        path.unlink()
    torch.save(weights, folder / "adapter_model.bin")
    released = {
        "auto_mapping": None,
        "base_model_name_or_path": RELEASED_BASE,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "layers_pattern": None,
        "layers_to_transform": None,
        "lora_alpha": config["lora_alpha"],
        "lora_dropout": 0.1,
        "modules_to_save": modules_to_save,
        "peft_type": "LORA",
        "r": config["r"],
        "revision": None,
        "target_modules": config["target_modules"],
        "task_type": task_type,
    }
    (folder / "adapter_config.json").write_text(json.dumps(released, indent=2))
    return folder
