"""Spoiling copies of checkpoints."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

Weights = dict[str, torch.Tensor]


def edit_json(path: Path, **changes: Any) -> None:
    """Change fields of a JSON file; the value `...` removes one."""
    values = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({name: value for name, value in values.items() if value is not ...}))


def copy_adapter(source: Path, target: Path, change: Callable[[Weights], Weights] | None = None, **fields: Any) -> Path:
    """Copy an adapter's folder with other tensors, or with other fields in its adapter_config.json."""
    shutil.copytree(source, target)
    if change is not None:
        file = target / "adapter_model.safetensors"
        save_file(change(load_file(file)), file, metadata={"format": "pt"})
    if fields:
        edit_json(target / "adapter_config.json", **fields)
    return target


def without(part: str) -> Callable[[Weights], Weights]:
    """Return a change that leaves out the tensors whose names contain `part`."""
    return lambda weights: {key: value for key, value in weights.items() if part not in key}


def replaced(part: str, new: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Weights], Weights]:
    """Return a change of the tensors whose names contain `part`."""
    return lambda weights: {key: new(value).contiguous() if part in key else value for key, value in weights.items()}
