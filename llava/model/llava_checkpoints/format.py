"""The original LLaVA checkpoint format: its constants, and telling it apart by config and key names.

Facts of the interface, from haotian-liu/LLaVA (llava/constants.py, llava/model/builder.py, llava/model/llava_arch.py).
Nothing is guessed from a path's name.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Any

from llava.errors import InputError
from llava.fields import Fields, describe_value
from llava.model.failures import explain_loading
from llava.model.files.model import CONFIG_NAME, REMEDY, read_model_config
from llava.model.files.tensors import tensor_keys, weight_files

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
UNDERSTOOD: dict[str, tuple[str | bool | None, ...]] = {
    "image_aspect_ratio": (None, "square", "pad"),
    "mm_patch_merge_type": (None, "flat"),
    "mm_resampler_type": (None, "identity"),
    "mm_vision_select_feature": (None, "patch", "cls_patch"),
}
"""Fields that decide how a picture becomes features, and the values that HF-native LLaVA has a form for."""
MM_FIELDS = frozenset(
    {
        *("mm_hidden_size", "mm_projector_type", "mm_projector_lr", "mm_vision_tower", "mm_vision_tower_lr"),
        *("mm_use_im_patch_token", "mm_use_im_start_end", "mm_vision_select_feature", "mm_vision_select_layer"),
        *("mm_patch_merge_type", "mm_resampler_type", "mm_tunable_parts"),
        # These place pictures of several tiles or frames, which are refused above or never asked for.
        *("mm_newline_position", "mm_spatial_pool_mode", "mm_spatial_pool_stride", "mm_spatial_pool_out_channels"),
    }
)
"""The `mm_*` fields that are read, or that do not bear on one square picture."""
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

    @cached_property
    def fields(self) -> Fields:
        """The reader of config.json's fields."""
        return Fields(self.config, f"model config {self.folder / CONFIG_NAME}", REMEDY)

    @property
    def projector_type(self) -> str:
        """`linear`, `mlp2x_gelu` or `identity`; configs of the first release do not say and mean `linear`."""
        return self.fields.text("mm_projector_type", None) or "linear"

    @property
    def select_layer(self) -> int:
        """Which hidden state of the tower is projected."""
        layer = self.fields.integer("mm_vision_select_layer", None, least=-1000, most=1000)
        return -2 if layer is None else layer

    @property
    def keeps_cls(self) -> bool:
        """Whether the tower's first position stays among the features."""
        return self.fields.text("mm_vision_select_feature", None, choices=("patch", "cls_patch")) == "cls_patch"

    @property
    def pads_to_square(self) -> bool:
        """Whether pictures are centred on a square of the mean colour instead of cropped."""
        return self.fields.text("image_aspect_ratio", None) == "pad"

    @property
    def extra_tokens(self) -> list[str]:
        """Tokens that the checkpoint's tokenizer must have, in the order in which they are added."""
        asked = self.fields.flag("mm_use_im_patch_token", None)
        tokens = [IMAGE_PATCH_TOKEN] if asked in (True, None) else []
        return tokens + ([IMAGE_START_TOKEN, IMAGE_END_TOKEN] if self.wraps_image else [])

    @property
    def wraps_image(self) -> bool:
        """Whether the picture stands between `<im_start>` and `<im_end>` in the prompt."""
        return bool(self.fields.flag("mm_use_im_start_end", None))

    @property
    def language_model_type(self) -> str:
        """transformers' model type of the language model."""
        names = [*(self.fields.texts("architectures", None) or [])[:1], self.fields.text("model_type", None)]
        known = [LANGUAGE_MODEL_TYPES[name] for name in names if name in LANGUAGE_MODEL_TYPES]
        return known[0] if known else str(names[-1])

    def text_config(self) -> Any:
        """Return the language model's own config.

        Raises:
            InputError: When transformers finds a field wrong.
        """
        from transformers import AutoConfig

        own = {
            key: value
            for key, value in self.config.items()
            if value is not None and key not in LLAVA_FIELDS and not key.startswith("mm_")
        }
        with explain_loading(f"the language model of checkpoint {self.folder}", "check its config.json"):
            return AutoConfig.for_model(self.language_model_type, **own)


def is_original_config(config: dict[str, Any]) -> bool:
    """Return whether a config.json is of the original format.

    The HF-native format has the same `model_type`, `llava`, and differs by its `text_config`.
    """
    if "text_config" in config or "vision_config" in config:
        return False
    names = [config.get("model_type"), *(config.get("architectures") or [])]
    return "mm_vision_tower" in config or any(name in (*LANGUAGE_MODEL_TYPES, "llava_mpt") for name in names)


def recognise(folder: Path) -> OriginalCheckpoint | None:
    """Return what original-format LLaVA checkpoint lies in `folder`; None when it is something else.

    Raises:
        InputError: When it is an original checkpoint of a form that is not supported, or incomplete.
    """
    if not (folder / "config.json").is_file():
        return None
    config = read_model_config(folder)
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
    for field, understood in UNDERSTOOD.items():
        value = config.get(field)
        if not any(value is known or (isinstance(value, str) and value == known) for known in understood):
            words = " or ".join(known for known in understood if isinstance(known, str))
            raise InputError(
                f"checkpoint {folder} has {field} {describe_value(value)}; only {words or 'none'} is understood: "
                "another way to cut or join pictures needs its HF-native form, e.g. llava-hf/llava-v1.6-vicuna-7b-hf"
            )
    unknown = [name for name in config if name.startswith("mm_") and name not in MM_FIELDS and config[name]]
    if unknown or config.get("s2"):
        raise InputError(
            f"checkpoint {folder} has {(unknown or ['s2'])[0]} in its config.json, which is not understood and may "
            "change how pictures are read; use its HF-native form"
        )
    _check_fields(checkpoint)
    if checkpoint.language_model_type not in LANGUAGE_MODEL_TYPES.values():
        raise InputError(
            f"checkpoint {folder} is built on {checkpoint.language_model_type}; supported language models: "
            f"{', '.join(sorted(set(LANGUAGE_MODEL_TYPES.values())))}"
        )


def _check_fields(checkpoint: OriginalCheckpoint) -> None:
    """Check the type of every field that is read later: a wrong one is said before anything is converted."""
    fields = checkpoint.fields
    fields.text("mm_vision_tower", None)
    fields.text("_name_or_path", None)
    fields.flag("tie_word_embeddings", None)
    fields.integer("mm_hidden_size", None, least=1)
    # Reading these is checking them.
    _ = (checkpoint.select_layer, checkpoint.keeps_cls, checkpoint.extra_tokens, checkpoint.pads_to_square)
    checkpoint.text_config()


def tower_key(key: str) -> str:
    """Return a vision tower weight's name without the prefix that some transformers versions put before it.

    Example:
        >>> tower_key("vision_model.embeddings.class_embedding"), tower_key("embeddings.class_embedding")
        ('embeddings.class_embedding', 'embeddings.class_embedding')
    """
    return key.removeprefix("vision_model.")
