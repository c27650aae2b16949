"""Writing the original form of an HF-native LLaVA checkpoint, its weights shard by shard."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from llava.errors import InputError
from llava.files import read_json, write_json
from llava.model.failures import explain_loading
from llava.model.files.tensors import iter_tensors, weight_files
from llava.model.llava_checkpoints.format import IMAGE_TOKEN, PROJECTOR_PREFIX, TOWER_FOLDER, tower_key
from llava.model.llava_checkpoints.weights import ShardWriter
from llava.model.quiet import quiet_transformers

ARCHITECTURES = {
    "llama": ("llava", "LlavaLlamaForCausalLM"),
    "mistral": ("llava_mistral", "LlavaMistralForCausalLM"),
    "qwen2": ("llava_qwen", "LlavaQwenForCausalLM"),
}
PARTS = re.compile(r"(?:model\.)?(?P<part>language_model|vision_tower|multi_modal_projector|lm_head)\.(?P<rest>.+)")


def export_original(hf_folder: Path, folder: Path, vision_tower: str) -> None:
    """Write the original form of an HF-native LLaVA into `folder`, its tower into a folder `vision_tower` within.

    Args:
        hf_folder: The HF-native checkpoint.
        folder: Where the files go.
        vision_tower: What to record as `mm_vision_tower`: a hub id, or where the folder written will lie.

    Raises:
        InputError: When the original format cannot express the model.
    """
    from transformers import AutoConfig, AutoProcessor

    with quiet_transformers():
        with explain_loading(f"checkpoint {hf_folder}", "check its config files"):
            config = AutoConfig.from_pretrained(hf_folder)
            check_expressible(hf_folder, config)
            processor = AutoProcessor.from_pretrained(hf_folder)
        rows = _rows_without_image(processor.tokenizer, config)
        projector_type, dtype = _write_weights(hf_folder, folder, config, rows)
        _write_config(folder, config, processor, projector_type, dtype, rows, vision_tower)
        _write_tokenizer(folder, processor, removed=rows is not None)
        processor.image_processor.save_pretrained(folder / TOWER_FOLDER)
        config.vision_config.architectures = ["CLIPVisionModel"]
        config.vision_config.save_pretrained(folder / TOWER_FOLDER)


def check_expressible(hf_folder: Path, config: Any) -> None:
    """Refuse what the original format has no words for."""
    parts = {
        "model_type": (config.model_type, ("llava",)),
        "vision tower": (getattr(getattr(config, "vision_config", None), "model_type", None), ("clip_vision_model",)),
        "language model": (getattr(config.get_text_config(), "model_type", None), tuple(ARCHITECTURES)),
        "projector activation": (getattr(config, "projector_hidden_act", None), ("gelu", "linear")),
    }
    for what, (found, allowed) in parts.items():
        if found not in allowed:
            raise InputError(
                f"checkpoint {hf_folder} cannot be written in the original LLaVA format: its {what} is {found}, "
                f"not {' or '.join(allowed)}"
            )
    if not isinstance(config.vision_feature_layer, int):
        raise InputError(f"checkpoint {hf_folder} joins several vision layers, which the original LLaVA does not know")


def _rows_without_image(tokenizer: Any, config: Any) -> int | None:
    """Return how many vocabulary rows stay when `<image>` goes; None when it must stay, as real tokens follow it.

    The original splits the text at `<image>` before the tokenizer sees it, so a token of that name does no harm.
    """
    followers = [id_ for token, id_ in tokenizer.get_vocab().items() if id_ > config.image_token_id]
    return None if followers else config.image_token_id


def _write_weights(hf_folder: Path, folder: Path, config: Any, rows: int | None) -> tuple[str, torch.dtype]:
    """Stream the weights; return the projector's type and the weights' type."""
    files = weight_files(hf_folder)
    if not files:
        raise InputError(f"checkpoint {hf_folder} has no weight files (model*.safetensors); fetch them too")
    size = sum(file.stat().st_size for file in files)
    tower_folder = folder / TOWER_FOLDER
    tower_folder.mkdir()
    writer, tower_writer = ShardWriter(folder, size), ShardWriter(tower_folder, size)
    projector: dict[str, torch.Tensor] = {}
    dtype = torch.float32
    for key, tensor in iter_tensors(files):
        match = PARTS.fullmatch(key)
        if match is None:
            raise InputError(f"checkpoint {hf_folder} holds {key}, which is no weight of a LLaVA")
        part, rest = match["part"], match["rest"]
        if part == "multi_modal_projector":
            projector[rest] = tensor
        elif part == "vision_tower":
            tower_writer.add(f"vision_model.{tower_key(rest)}", tensor)
        else:
            name = f"lm_head.{rest}" if part == "lm_head" else rest
            name = name if name.startswith(("model.", "lm_head.")) else f"model.{name}"
            if name in ("model.embed_tokens.weight", "lm_head.weight"):
                # A slice would carry the whole storage into the file.
                tensor, dtype = tensor[:rows].clone(), tensor.dtype
            writer.add(name, tensor)
    projector_type, layers = original_projector(projector, config.projector_hidden_act)
    for name, value in layers.items():
        writer.add(PROJECTOR_PREFIX + name, value)
    writer.close()
    tower_writer.close()
    return projector_type, dtype


def original_projector(weights: dict[str, torch.Tensor], activation: str) -> tuple[str, dict[str, torch.Tensor]]:
    """Return the projector's type and weights in the original format.

    Two layers with nothing between them are one: W2 (W1 x + b1) + b2 = (W2 W1) x + (W2 b1 + b2). With an identity as
    second layer, as `hf_writer` writes it, that gives the first back to the last bit.

    Args:
        weights: `linear_1.*` and `linear_2.*`.
        activation: `gelu` or `linear`.
    """
    first, second = weights["linear_1.weight"], weights["linear_2.weight"]
    zero = torch.zeros(1, dtype=first.dtype)
    first_bias, second_bias = weights.get("linear_1.bias", zero), weights.get("linear_2.bias", zero)
    if activation == "gelu":
        return "mlp2x_gelu", {
            "0.weight": first,
            "0.bias": first_bias.expand(first.shape[0]),
            "2.weight": second,
            "2.bias": second_bias.expand(second.shape[0]),
        }
    weight = second.double() @ first.double()
    bias = second.double() @ first_bias.double().expand(first.shape[0]) + second_bias.double()
    return "linear", {"weight": weight.to(first.dtype), "bias": bias.to(first.dtype)}


def _write_config(
    folder: Path,
    config: Any,
    processor: Any,
    projector_type: str,
    dtype: torch.dtype,
    rows: int | None,
    vision_tower: str,
) -> None:
    """Write config.json and generation_config.json."""
    text = config.text_config
    model_type, architecture = ARCHITECTURES[text.model_type]
    own = {k: v for k, v in text.to_dict().items() if k not in ("model_type", "architectures", "dtype", "torch_dtype")}
    write_json(
        folder / "config.json",
        {
            **own,
            "vocab_size": rows or text.vocab_size,
            "tie_word_embeddings": config.tie_word_embeddings,
            "model_type": model_type,
            "architectures": [architecture],
            "torch_dtype": str(dtype).removeprefix("torch."),
            "mm_vision_tower": vision_tower,
            "mm_hidden_size": config.vision_config.hidden_size,
            "mm_projector_type": projector_type,
            "mm_vision_select_layer": config.vision_feature_layer,
            "mm_vision_select_feature": "cls_patch" if config.vision_feature_select_strategy == "full" else "patch",
            "mm_use_im_start_end": False,
            "mm_use_im_patch_token": False,
            "image_aspect_ratio": "pad" if getattr(processor.image_processor, "do_pad", False) else "square",
            "use_mm_proj": True,
        },
    )


def _write_tokenizer(folder: Path, processor: Any, *, removed: bool) -> None:
    """Write the tokenizer, without `<image>` when its row is gone, with the chat template that places pictures."""
    processor.tokenizer.chat_template = processor.chat_template
    processor.tokenizer.save_pretrained(folder)
    if not removed:
        return
    content = read_json(folder / "tokenizer.json", "tokenizer")
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] != IMAGE_TOKEN]
    write_json(folder / "tokenizer.json", content)
    settings = read_json(folder / "tokenizer_config.json", "tokenizer config")
    for field, value in list(settings.items()):
        if value == IMAGE_TOKEN:
            del settings[field]
        elif field == "added_tokens_decoder":
            settings[field] = {k: v for k, v in value.items() if v.get("content") != IMAGE_TOKEN}
        elif isinstance(value, list):
            settings[field] = [item for item in value if item != IMAGE_TOKEN]
    write_json(folder / "tokenizer_config.json", settings)
