"""A new LLaVA from a language model and a CLIP tower, and projectors released on their own.

Both go by the original format's projector-only release: a new model is such a release with a random projector, so what
stage 1 trains can be handed on as a few megabytes and becomes the same model again wherever base and tower are.
"""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import Any

import torch

from llava.errors import InputError
from llava.files import write_json
from llava.model.cache import build_once, cache_dir, folder_fingerprint
from llava.model.embedded.base_lm import resolve_base_name
from llava.model.failures import explain_loading
from llava.model.files.model import read_model_config
from llava.model.hub import fetch
from llava.model.llava_checkpoints.format import (
    IMAGE_START_TOKEN,
    IMAGE_TOKEN,
    PROJECTOR_FILES,
    PROJECTOR_PREFIX,
    OriginalCheckpoint,
    recognise,
)
from llava.model.llava_checkpoints.source import HUB_PATTERNS, OriginalSource
from llava.model.llava_checkpoints.to_original import ARCHITECTURES, original_projector


def composed_folder(base: str, vision_tower: str, *, seed: int = 0, prompt_version: str | None = None) -> Path:
    """Return an HF-native LLaVA of a language model, a CLIP tower and a random two-layer projector, built once.

    Args:
        base: Language model: folder, hub id or the embedded one's name.
        vision_tower: CLIP tower: folder or hub id.
        seed: Seed of the projector.
        prompt_version: `v0`, `v1` or `llama_2`; None takes the base's own chat template, or `v1` when it has none.

    Raises:
        InputError: When a part cannot be found, or is of a kind that LLaVA is not made of.
    """
    base_folder = fetch(resolve_base_name(base), "base language model", "check --base", HUB_PATTERNS)
    tower_folder = fetch(vision_tower, "vision tower", "check --vision-tower", ["*.json", "*.safetensors", "*.bin"])
    parts = (folder_fingerprint(base_folder), folder_fingerprint(tower_folder), str(seed), str(prompt_version))
    key = hashlib.sha256(":".join(parts).encode()).hexdigest()[:16]
    return build_once(
        cache_dir() / f"llava-new-{key}",
        lambda folder: _compose(folder, base_folder, tower_folder, seed, prompt_version),
    )


def _compose(folder: Path, base: Path, tower: Path, seed: int, prompt_version: str | None) -> None:
    """Write the HF-native model into an empty folder."""
    from llava.model.llava_checkpoints.to_hf import write_hf

    language = read_model_config(base)
    vision = read_model_config(tower, "vision tower config")
    width = (vision.get("vision_config") or vision).get("hidden_size")
    if not isinstance(width, int):
        raise InputError(f"vision tower {tower} has no hidden_size in its config.json; give a CLIP vision model")
    config = projector_config(language, str(base), str(tower), vision_width=width)
    with tempfile.TemporaryDirectory() as scratch:
        write_projector(Path(scratch), config, random_projector(width, config["hidden_size"], seed))
        if prompt_version is None:
            _write_own_prompt(base, Path(scratch))
        write_hf(OriginalSource(_recognised(Path(scratch))), folder, prompt_version)


PICTURES_FIRST = (
    "{%- set turns = namespace(list=[]) -%}{%- for message in messages -%}"
    "{%- if message['content'] is string -%}{%- set said = message['content'] -%}{%- else -%}{%- set said -%}"
    "{%- for part in message['content'] if part['type'] == 'image' -%}{{ 'IMAGE\n' }}{%- endfor -%}"
    "{%- for part in message['content'] if part['type'] == 'text' -%}{{ part['text'] }}{%- endfor -%}"
    "{%- endset -%}{%- endif -%}"
    "{%- set turns.list = turns.list + [{'role': message['role'], 'content': said}] -%}{%- endfor -%}"
    "{%- set messages = turns.list -%}"
).replace("IMAGE", IMAGE_TOKEN)
"""Put before a language model's chat template, it writes pictures into the text of their turn."""


def _write_own_prompt(base: Path, folder: Path) -> None:
    """Save the base's tokenizer with a chat template that places pictures, where the base has a chat template."""
    from transformers import AutoTokenizer

    with explain_loading(f"the tokenizer in {base}", "copy its tokenizer files"):
        tokenizer = AutoTokenizer.from_pretrained(base)
    shipped = tokenizer.chat_template
    if isinstance(shipped, str) and IMAGE_TOKEN not in shipped:
        tokenizer.chat_template = PICTURES_FIRST + shipped
        tokenizer.save_pretrained(folder)


def projector_config(
    language: dict[str, Any], base: str, vision_tower: str, *, vision_width: int, **changes: Any
) -> dict[str, Any]:
    """Return config.json of a projector-only release.

    Args:
        language: The language model's config.
        base: Name of the language model to record.
        vision_tower: Name of the tower to record.
        vision_width: Width of the tower's features.
        changes: Fields that differ from LLaVA 1.5's.
    """
    kind = language.get("model_type")
    if kind not in ARCHITECTURES:
        raise InputError(
            f"base language model {base} is {kind}; LLaVA can be built on {', '.join(sorted(ARCHITECTURES))}"
        )
    model_type, architecture = ARCHITECTURES[kind]
    return {
        **language,
        "_name_or_path": base,
        "architectures": [architecture],
        "model_type": model_type,
        "mm_vision_tower": vision_tower,
        "mm_hidden_size": vision_width,
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch",
        "mm_use_im_start_end": False,
        "mm_use_im_patch_token": False,
        "image_aspect_ratio": "pad",
        "tune_mm_mlp_adapter": True,
        "use_mm_proj": True,
        **changes,
    }


def random_projector(vision_width: int, text_width: int, seed: int) -> dict[str, torch.Tensor]:
    """Return the weights of a two-layer projector as PyTorch initialises them, by the original's names."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = {"0": torch.nn.Linear(vision_width, text_width), "2": torch.nn.Linear(text_width, text_width)}
    return {f"{name}.{key}": value for name, layer in layers.items() for key, value in layer.state_dict().items()}


def write_projector(folder: Path, config: dict[str, Any], weights: dict[str, torch.Tensor]) -> None:
    """Write a projector-only release: config.json and mm_projector.safetensors.

    Args:
        folder: Where the files go.
        config: See `projector_config`.
        weights: By the original's names (`0.weight`, …).
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tensors = {PROJECTOR_PREFIX + name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    save_file(tensors, folder / PROJECTOR_FILES[0], metadata={"format": "pt"})
    write_json(folder / "config.json", config)


def release_projector(
    folder: Path, config: Any, processor: Any, weights: dict[str, torch.Tensor], **names: str
) -> None:
    """Write the projector of an HF-native LLaVA as a release of its own, with the tokenizer and its chat template.

    Args:
        folder: Where the files go.
        config: The model's LlavaConfig.
        processor: Its processor.
        weights: `linear_1.*` and `linear_2.*`.
        names: `base` and `vision_tower`: what to record as the language model and the tower.
    """
    kind, layers = original_projector(weights, config.projector_hidden_act)
    settings = projector_config(
        config.text_config.to_dict(),
        **names,
        vision_width=config.vision_config.hidden_size,
        mm_projector_type=kind,
        mm_vision_select_layer=config.vision_feature_layer,
        mm_vision_select_feature="cls_patch" if config.vision_feature_select_strategy == "full" else "patch",
        mm_use_im_start_end=IMAGE_START_TOKEN in (processor.chat_template or ""),
        image_aspect_ratio="pad" if getattr(processor.image_processor, "do_pad", False) else "square",
    )
    write_projector(folder, settings, layers)
    processor.tokenizer.chat_template = processor.chat_template
    processor.tokenizer.save_pretrained(folder)


def _recognised(folder: Path) -> OriginalCheckpoint:
    """Return the checkpoint that was just written."""
    checkpoint = recognise(folder)
    if checkpoint is None:
        raise RuntimeError(f"{folder} was not written as a projector-only LLaVA")
    return checkpoint
