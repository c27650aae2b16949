"""The original LLaVA checkpoint format: its constants, and telling it apart by config and key names.

Facts of the interface, from haotian-liu/LLaVA (llava/constants.py, llava/model/builder.py, llava/model/llava_arch.py).
Nothing is guessed from a path's name.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from llava.errors import InputError
from llava.files import read_json

IMAGE_TOKEN = "<image>"  # noqa: S105 - a token of the vocabulary, not a secret
IMAGE_PATCH_TOKEN = "<im_patch>"  # noqa: S105
IMAGE_START_TOKEN = "<im_start>"  # noqa: S105
IMAGE_END_TOKEN = "<im_end>"  # noqa: S105
IMAGE_TOKEN_INDEX = -200
"""Id that stands for the picture in the original's token ids; it is in no vocabulary."""

LANGUAGE_MODEL_TYPES = {
    "llava": "llama",
    "llava_llama": "llama",
    "llava_mistral": "mistral",
    "llava_qwen": "qwen2",
    "LlavaLlamaForCausalLM": "llama",
    "LlavaMistralForCausalLM": "mistral",
    "LlavaQwenForCausalLM": "qwen2",
}
"""`model_type` or architecture of an original checkpoint, and the transformers model type of its language model."""

LLAVA_FIELDS = frozenset(
    {
        *("image_aspect_ratio", "image_grid_pinpoints", "image_crop_resolution", "image_split_resolution"),
        *("tune_mm_mlp_adapter", "freeze_mm_mlp_adapter", "use_mm_proj", "unfreeze_mm_vision_tower"),
        *("tune_mm_vision_resampler", "vision_tower", "tokenizer_model_max_length", "tokenizer_padding_side"),
        *("architectures", "model_type", "auto_map", "transformers_version", "_name_or_path", "torch_dtype", "dtype"),
    }
)
"""Config fields, besides `mm_*`, that are not the language model's own."""

LORA_FILES = ("adapter_config.json", "non_lora_trainables.bin")
ADAPTER_FILES = ("adapter_model.safetensors", "adapter_model.bin")
PROJECTOR_FILES = ("mm_projector.safetensors", "mm_projector.bin")
"""Ours and the released ones'; the first that is there is read."""
TOWER_FOLDER = "vision_tower"
"""Folder within a checkpoint that we write, for the tower that the released ones leave elsewhere."""
PROJECTOR_TYPES = ("linear", "mlp2x_gelu", "identity")
TOWER_PREFIX = "model.vision_tower.vision_tower."
PROJECTOR_PREFIX = "model.mm_projector."


class Kind(str, Enum):
    """What an original checkpoint holds."""

    FULL = "full"
    """Language model and projector; perhaps the vision tower."""
    LORA = "lora"
    """A LoRA adapter and the other trained weights; needs the base language model."""
    PROJECTOR = "projector"
    """A projector; needs the base language model."""


@dataclass(frozen=True)
class OriginalCheckpoint:
    """An original-format LLaVA checkpoint on disk."""

    folder: Path
    kind: Kind
    config: dict[str, Any]
    """Its config.json."""

    @property
    def projector_type(self) -> str:
        """`linear`, `mlp2x_gelu` or `identity`; configs of the first release do not say and mean `linear`."""
        return self.config.get("mm_projector_type") or "linear"

    @property
    def select_layer(self) -> int:
        """Which hidden state of the tower is projected."""
        return int(self.config.get("mm_vision_select_layer", -2))

    @property
    def keeps_cls(self) -> bool:
        """Whether the tower's first position stays among the features."""
        return self.config.get("mm_vision_select_feature", "patch") == "cls_patch"

    @property
    def pads_to_square(self) -> bool:
        """Whether pictures are centred on a square of the mean colour instead of cropped."""
        return self.config.get("image_aspect_ratio") == "pad"

    @property
    def extra_tokens(self) -> list[str]:
        """Tokens that the checkpoint's tokenizer must have, in the order in which they are added."""
        tokens = [IMAGE_PATCH_TOKEN] if self.config.get("mm_use_im_patch_token", True) else []
        return tokens + ([IMAGE_START_TOKEN, IMAGE_END_TOKEN] if self.wraps_image else [])

    @property
    def wraps_image(self) -> bool:
        """Whether the picture stands between `<im_start>` and `<im_end>` in the prompt."""
        return bool(self.config.get("mm_use_im_start_end", False))

    @property
    def language_model_type(self) -> str:
        """transformers' model type of the language model."""
        architecture = (self.config.get("architectures") or [None])[0]
        for name in (architecture, self.config.get("model_type")):
            if name in LANGUAGE_MODEL_TYPES:
                return LANGUAGE_MODEL_TYPES[name]
        return str(self.config.get("model_type"))

    def text_config(self) -> Any:
        """Return the language model's own config."""
        from transformers import AutoConfig

        own = {
            key: value
            for key, value in self.config.items()
            if value is not None and key not in LLAVA_FIELDS and not key.startswith("mm_")
        }
        return AutoConfig.for_model(self.language_model_type, **own)


def is_original_config(config: dict[str, Any]) -> bool:
    """Return whether a config.json is of the original format.

    The HF-native format has the same `model_type`, `llava`, and differs by its `text_config`.
    """
    if "text_config" in config or "vision_config" in config:
        return False
    names = {config.get("model_type"), *(config.get("architectures") or [])}
    return "mm_vision_tower" in config or bool(names & {*LANGUAGE_MODEL_TYPES, "llava_mpt"})


def recognise(folder: Path) -> OriginalCheckpoint | None:
    """Return what original-format LLaVA checkpoint lies in `folder`; None when it is something else.

    Raises:
        InputError: When it is an original checkpoint of a form that is not supported, or incomplete.
    """
    from llava.model.tensor_files import tensor_keys, weight_files

    if not (folder / "config.json").is_file():
        return None
    config = read_json(folder / "config.json", "model config")
    if not is_original_config(config):
        return None
    if all((folder / file).is_file() for file in LORA_FILES):
        kind = Kind.LORA
    elif files := weight_files(folder):
        kind = Kind.FULL
        if (
            not any("mm_projector" in key for key in tensor_keys(files))
            and config.get("mm_projector_type") != "identity"
        ):
            raise InputError(f"checkpoint {folder} lacks model.mm_projector.* weights; it is not a whole LLaVA")
    elif any((folder / file).is_file() for file in PROJECTOR_FILES):
        kind = Kind.PROJECTOR
    else:
        raise InputError(
            f"checkpoint {folder} has a LLaVA config.json but no weights (model*.safetensors, pytorch_model*.bin, "
            f"{' with '.join(LORA_FILES)} or {PROJECTOR_FILES[1]}); fetch them too"
        )
    checkpoint = OriginalCheckpoint(folder, kind, config)
    _check_supported(checkpoint)
    return checkpoint


def _check_supported(checkpoint: OriginalCheckpoint) -> None:
    """Refuse what HF-native LLaVA cannot express."""
    config, folder = checkpoint.config, checkpoint.folder
    if checkpoint.projector_type not in PROJECTOR_TYPES:
        raise InputError(
            f"checkpoint {folder} has mm_projector_type {checkpoint.projector_type}; "
            f"supported: {', '.join(PROJECTOR_TYPES)}"
        )
    if config.get("image_aspect_ratio") == "anyres" or config.get("s2"):
        raise InputError(
            f"checkpoint {folder} cuts pictures into tiles (image_aspect_ratio anyres); use its HF-native form, "
            "e.g. llava-hf/llava-v1.6-vicuna-7b-hf"
        )
    if checkpoint.language_model_type not in LANGUAGE_MODEL_TYPES.values():
        raise InputError(
            f"checkpoint {folder} is built on {checkpoint.language_model_type}; supported language models: "
            f"{', '.join(sorted(set(LANGUAGE_MODEL_TYPES.values())))}"
        )


def tower_key(key: str) -> str:
    """Return a vision tower weight's name without the prefix that some transformers versions put before it.

    Example:
        >>> tower_key("vision_model.embeddings.class_embedding"), tower_key("embeddings.class_embedding")
        ('embeddings.class_embedding', 'embeddings.class_embedding')
    """
    return key.removeprefix("vision_model.")
