"""The parts of an original LLaVA checkpoint: finding them, and reading their tensors under the original's names."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from llava.errors import InputError
from llava.model.adapter_check import check_adapter
from llava.model.embedded.base_lm import resolve_base_name
from llava.model.failures import explain_loading
from llava.model.files.adapter import read_adapter_config
from llava.model.files.model import CONFIG_NAME, check_model_files, read_model_config
from llava.model.files.tensors import iter_tensors, open_tensors, read_tensors, tensor_keys, weight_files
from llava.model.hub import fetch
from llava.model.llava_checkpoints.format import (
    ADAPTER_FILES,
    PROJECTOR_FILES,
    TOWER_PREFIX,
    Kind,
    OriginalCheckpoint,
    tower_key,
)
from llava.model.quiet import quiet_transformers

HUB_PATTERNS = ["*.json", "*.safetensors", "*.bin", "*.model", "*.txt", "*.jinja"]
TOWER_PARTS = ("embeddings.", "encoder.", "pre_layrnorm.", "post_layernorm.")
LORA_KEY = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])(?:\.default)?\.weight")


class OriginalSource:
    """An original checkpoint with the base language model and the vision tower that it refers to.

    Args:
        checkpoint: What `llava_format.recognise` found.
        base: Folder or hub id of the base language model; None takes the one that the checkpoint records.
        vision_tower: Folder or hub id of the CLIP tower; None takes `mm_vision_tower`.

    Raises:
        InputError: When a part cannot be found.
    """

    def __init__(self, checkpoint: OriginalCheckpoint, *, base: str | None = None, vision_tower: str | None = None):
        self.checkpoint = checkpoint
        self.base = None if checkpoint.kind is Kind.FULL else self._find_base(base)
        self.tower = self._find_tower(vision_tower)
        for folder, what in ((self.base, "base language model"), (self.tower, "vision tower")):
            if folder and (folder / CONFIG_NAME).is_file():
                check_model_files(folder, what)
        self.language_files = weight_files(self.base or checkpoint.folder)
        if not self.language_files:
            raise InputError(f"base language model {self.base} has no weight files; fetch them or give --base")

    @property
    def folders(self) -> list[Path]:
        """All folders that the result depends on."""
        return [self.checkpoint.folder, self.tower, *([self.base] if self.base else [])]

    @property
    def tokenizer_folder(self) -> Path:
        """Where the tokenizer lies: with the checkpoint if it has one, else with the base."""
        own = self.checkpoint.folder
        has_tokenizer = any((own / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json"))
        return own if has_tokenizer or self.base is None else self.base

    @property
    def size(self) -> int:
        """Bytes of the weight files."""
        return sum(file.stat().st_size for file in self.language_files)

    @cached_property
    def dtype(self) -> torch.dtype:
        """Type of the language model's weights; the original runs tower and projector in it too."""
        for _, tensor in iter_tensors(self.language_files):
            if tensor.is_floating_point():
                return tensor.dtype
        raise InputError(f"the weight files of {self.base or self.checkpoint.folder} hold no weights; fetch them again")

    @cached_property
    def tower_config(self) -> Any:
        """The tower's CLIPVisionConfig."""
        from transformers import CLIPVisionConfig

        config = read_model_config(self.tower, "vision tower config")
        if config.get("model_type") not in ("clip", "clip_vision_model"):
            raise InputError(f"vision tower {self.tower} is {config.get('model_type')}; only CLIP towers are supported")
        own = config.get("vision_config") if config["model_type"] == "clip" else config
        with explain_loading(f"vision tower {self.tower}", "check its config.json or give --vision-tower"):
            tower = CLIPVisionConfig(**{k: v for k, v in (own or {}).items() if k != "model_type"})
        if not -tower.num_hidden_layers - 1 <= self.checkpoint.select_layer <= tower.num_hidden_layers:
            raise InputError(
                f"checkpoint {self.checkpoint.folder} takes layer {self.checkpoint.select_layer} of a vision tower "
                f"that has {tower.num_hidden_layers}; mend mm_vision_select_layer or give --vision-tower"
            )
        return tower

    @cached_property
    def trained(self) -> dict[str, torch.Tensor]:
        """Weights that replace the base's: projector, and whatever else was trained in full; original names.

        A LoRA that was trained with the projector frozen has none of its own.

        Raises:
            InputError: When one holds no finite floating-point numbers.
        """
        folder = self.checkpoint.folder
        if self.checkpoint.kind is Kind.FULL:
            return {}
        names = ("non_lora_trainables.bin",) if self.checkpoint.kind is Kind.LORA else PROJECTOR_FILES
        file = next((name for name in names if (folder / name).is_file()), names[0])
        weights = {key.removeprefix("base_model."): value for key, value in read_tensors(folder / file).items()}
        for key, value in weights.items():
            if not value.is_floating_point() or not torch.isfinite(value).all():
                what = "numbers that are not finite" if value.is_floating_point() else "whole numbers"
                raise InputError(f"{folder / file}: {key} holds {what}; fetch that file again")
        if any(key.startswith("model.model.") for key in weights):
            weights = {key.removeprefix("model."): value for key, value in weights.items()}
        return {key if key.startswith(("model.", "lm_head.")) else f"model.{key}": v for key, v in weights.items()}

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield every weight once under its original name and in its own type, LoRA merged, the tower last."""
        deltas = self._lora_deltas() if self.checkpoint.kind is Kind.LORA else None
        own_projector = any("mm_projector" in key for key in self.trained)
        inside = False
        for key, tensor in iter_tensors(self.language_files):
            if key.startswith(TOWER_PREFIX):
                inside = True
                yield TOWER_PREFIX + tower_key(key.removeprefix(TOWER_PREFIX)), tensor
            elif key not in self.trained and not (own_projector and "mm_projector" in key):
                yield key, deltas.merge(key, tensor) if deltas else tensor
        for key, tensor in self.trained.items():
            inside = inside or key.startswith(TOWER_PREFIX)
            yield key, tensor
        if not inside:
            yield from self._tower_tensors()

    def base_tensor(self, key: str) -> torch.Tensor:
        """Return one weight of the base language model."""
        for file in self.language_files:
            opened = open_tensors(file)
            if key in opened.keys:
                return opened.tensor(key)
        raise InputError(f"base language model {self.base} lacks {key}; fetch it again or give --base")

    def _lora_deltas(self) -> LoraDeltas:
        """Return the updates, once they are known to be whole and the base's."""
        folder = self.checkpoint.folder
        deltas = LoraDeltas(folder)
        deltas.check_base_has(tensor_keys(self.language_files))
        from transformers import AutoModelForCausalLM

        text_config = self.checkpoint.text_config()
        what = f"checkpoint {folder}"
        with quiet_transformers(), explain_loading(what, "check its config.json"), torch.device("meta"):
            skeleton = AutoModelForCausalLM.from_config(text_config)
        check_adapter(skeleton, folder, str(self.base), named_default=True)
        return deltas

    def _tower_tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield the separate tower's weights under the names they would have inside the checkpoint."""
        files = weight_files(self.tower)
        if not any(tower_key(key).startswith(TOWER_PARTS) for key in tensor_keys(files)):
            raise InputError(f"vision tower {self.tower} holds no CLIP vision weights; give --vision-tower")
        for key, tensor in iter_tensors(files):
            name = tower_key(key)
            if name.startswith(TOWER_PARTS) and not name.endswith("position_ids"):
                yield TOWER_PREFIX + name, tensor

    def _find_base(self, given: str | None) -> Path:
        """Return the folder of the base language model."""
        folder, config = self.checkpoint.folder, self.checkpoint.config
        recorded = config.get("_name_or_path")
        if self.checkpoint.kind is Kind.LORA:
            recorded = read_adapter_config(folder)["base_model_name_or_path"] or recorded
        name = given or recorded
        what = f"base language model of {folder},"
        if not name:
            raise InputError(f"{what} is not recorded in its config; give --base")
        return fetch(resolve_base_name(name), what, "give --base", HUB_PATTERNS)

    def _find_tower(self, given: str | None) -> Path:
        """Return the folder of the vision tower."""
        folder = self.checkpoint.folder
        name = given or self.checkpoint.config.get("mm_vision_tower")
        if not name:
            raise InputError(f"checkpoint {folder} names no mm_vision_tower in config.json; give --vision-tower")
        # Names from files may be of any form; these two functions take every text.
        beside = os.path.join(folder, os.path.basename(name), "config.json")  # noqa: PTH118, PTH119
        if given is None and not os.path.isdir(name) and os.path.isfile(beside):  # noqa: PTH112, PTH113
            return Path(beside).parent
        return fetch(name, f"vision tower of {folder},", "give --vision-tower", ["*.json", "*.safetensors", "*.bin"])


class LoraDeltas:
    """The low-rank updates of a LoRA checkpoint, added to base weights one at a time."""

    def __init__(self, folder: Path):
        config = read_adapter_config(folder)
        unsupported = [
            field
            for field in ("use_dora", "rank_pattern", "alpha_pattern", "modules_to_save", "fan_in_fan_out")
            if config.get(field)
        ]
        if unsupported or config["bias"] != "none":
            raise InputError(f"adapter {folder} uses {', '.join(unsupported) or 'bias'}, which cannot be merged here")
        rank = config["r"]
        self.scale = config["lora_alpha"] / (rank**0.5 if config["use_rslora"] else rank)
        self.folder = folder
        self.pairs: dict[str, dict[str, torch.Tensor]] = {}
        file = next((folder / name for name in ADAPTER_FILES if (folder / name).is_file()), folder / ADAPTER_FILES[0])
        for key, tensor in read_tensors(file).items():
            match = LORA_KEY.fullmatch(key)
            if match is None:
                raise InputError(f"{file} holds {key}, which is no LoRA weight; the adapter is of another kind")
            self.pairs.setdefault(f"{match['module']}.weight", {})[match["side"]] = tensor
        if halves := [key for key, pair in self.pairs.items() if len(pair) != 2]:
            raise InputError(f"{file} lacks one side of the update of {halves[0]}; fetch it again")

    def merge(self, key: str, weight: torch.Tensor) -> torch.Tensor:
        """Return W + scale · B A in the weight's type, computed in single precision; W unchanged without an update."""
        pair = self.pairs.pop(key, None)
        if pair is None:
            return weight
        return (weight.float() + self.scale * (pair["B"].float() @ pair["A"].float())).to(weight.dtype)

    def check_base_has(self, names: list[str]) -> None:
        """Refuse an adapter some of whose updates find no weight among the base's."""
        if lost := sorted(self.pairs.keys() - set(names)):
            raise InputError(
                f"adapter {self.folder} updates {', '.join(lost[:3])}, which the base language model "
                "lacks; give the base it was trained on by --base"
            )
