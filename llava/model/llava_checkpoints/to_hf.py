"""Writing the HF-native form of an original LLaVA checkpoint, its weights shard by shard.

A linear projector (LLaVA v1) becomes the HF-native two layers with the identity as activation and as second layer: the
same numbers to the last bit, and every tool that reads HF-native LLaVA reads the result.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from llava.errors import InputError
from llava.model.answering.prompts import chat_template, choose_template
from llava.model.failures import explain_loading
from llava.model.llava_checkpoints.format import (
    IMAGE_END_TOKEN,
    IMAGE_START_TOKEN,
    IMAGE_TOKEN,
    PROJECTOR_PREFIX,
    TOWER_PREFIX,
    tower_key,
)
from llava.model.llava_checkpoints.source import OriginalSource
from llava.model.llava_checkpoints.weights import ShardWriter
from llava.model.quiet import quiet_transformers

VOCABULARY_KEYS = ("model.embed_tokens.weight", "lm_head.weight")
BUFFER_ENDINGS = ("rotary_emb.inv_freq", "position_ids")
PROJECTOR_ENDINGS = {"linear": ("weight", "bias"), "mlp2x_gelu": ("0.weight", "0.bias", "2.weight", "2.bias")}


def write_hf(source: OriginalSource, folder: Path, prompt_version: str | None = None) -> None:
    """Write the HF-native form of `source` into `folder`: weights, config, tokenizer, processor.

    Args:
        source: The original checkpoint with all its parts.
        folder: Where the files go.
        prompt_version: `v0`, `v1` or `llama_2`; None takes the checkpoint's own template if it places pictures, else
            decides by it.

    Raises:
        InputError: When weights are missing, unknown or of the wrong shape.
    """
    with quiet_transformers():
        tokenizer = _tokenizer(source)
        text_config = source.checkpoint.text_config()
        text_config.vocab_size = _write_weights(source, folder, text_config, tokenizer)
        _hf_config(source, text_config, tokenizer).save_pretrained(folder)
        image = f"{IMAGE_START_TOKEN}{IMAGE_TOKEN}{IMAGE_END_TOKEN}" if source.checkpoint.wraps_image else IMAGE_TOKEN
        shipped, tokenizer.chat_template = tokenizer.chat_template, None
        template = chat_template(prompt_version, image) if prompt_version else choose_template(shipped, image)
        _processor(source, tokenizer, template).save_pretrained(folder)
        _generation_config(text_config, tokenizer, prompt_version).save_pretrained(folder)


def _tokenizer(source: OriginalSource) -> Any:
    """Return the checkpoint's tokenizer with the picture tokens that its config asks for, and `<image>`."""
    from transformers import AutoTokenizer

    with explain_loading(f"the tokenizer in {source.tokenizer_folder}", "copy its tokenizer files"):
        tokenizer = AutoTokenizer.from_pretrained(source.tokenizer_folder)
    tokenizer.add_tokens([*source.checkpoint.extra_tokens, IMAGE_TOKEN], special_tokens=True)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    return tokenizer


def _write_weights(source: OriginalSource, folder: Path, text_config: Any, tokenizer: Any) -> int:
    """Stream all weights into `folder` under HF-native names and in one type; return the vocabulary's rows."""
    expected = expected_shapes(source, text_config)
    problems: dict[str, list[str]] = {"unknown": [], "of another shape": []}
    rows = 0
    writer = ShardWriter(folder, source.size)
    for key, tensor in source.tensors():
        if key.endswith(BUFFER_ENDINGS):
            continue
        if key == "lm_head.weight" and key not in expected and is_tied_copy(source, tensor):
            continue
        if key not in expected:
            problems["unknown"].append(key)
            continue
        shape = expected.pop(key)
        if key in VOCABULARY_KEYS:
            tensor = grow_vocabulary(source, key, tensor, tokenizer)
            rows = tensor.shape[0]
        elif tensor.shape != shape:
            problems["of another shape"].append(key)
            continue
        for name, value in hf_tensors(source.checkpoint.projector_type, key, tensor):
            writer.add(name, value.to(source.dtype))
    if source.checkpoint.projector_type == "identity":
        for name, value in _identity_layers(text_config.hidden_size, ("linear_1", "linear_2"), source.dtype):
            writer.add(name, value)
    _refuse_problems(source.checkpoint.folder, {"missing": sorted(expected), **problems})
    writer.close()
    return rows


def is_tied_copy(source: OriginalSource, head: torch.Tensor) -> bool:
    """Tell whether an output layer repeats the embeddings that it is tied to.

    Raises:
        InputError: When it differs from them: the config says that they are one matrix, and nobody knows which.
    """
    name = "model.embed_tokens.weight"
    embeddings = source.trained[name] if name in source.trained else source.base_tensor(name)
    if head.shape != embeddings.shape or not torch.equal(head, embeddings):
        raise InputError(
            f"checkpoint {source.checkpoint.folder} has tie_word_embeddings, and an lm_head.weight other than its "
            "embeddings; set tie_word_embeddings to false in its config.json, or leave the lm_head out"
        )
    return True


def _refuse_problems(folder: Path, problems: dict[str, list[str]]) -> None:
    """Name the weights that make a checkpoint incomplete or another model's."""
    parts = [
        f"{label}: {', '.join(keys[:3])}{f' and {len(keys) - 3} more' if len(keys) > 3 else ''}"
        for label, keys in problems.items()
        if keys
    ]
    if parts:
        raise InputError(
            f"the weights of checkpoint {folder} do not fit its config.json ({'; '.join(parts)}); "
            "it is incomplete or of another model, fetch it again"
        )


def expected_shapes(source: OriginalSource, text_config: Any) -> dict[str, torch.Size]:
    """Return the original names and the shapes of all weights that the model has."""
    from transformers import AutoModelForCausalLM, CLIPVisionModel

    vision = source.tower_config
    what = f"the network of checkpoint {source.checkpoint.folder}"
    with explain_loading(what, "check its config.json"), torch.device("meta"):
        language = AutoModelForCausalLM.from_config(text_config).state_dict()
        tower = CLIPVisionModel(vision).state_dict()
    if text_config.tie_word_embeddings:
        language.pop("lm_head.weight", None)
    shapes = {key: value.shape for key, value in language.items()}
    shapes |= {TOWER_PREFIX + tower_key(key): value.shape for key, value in tower.items()}
    for ending in PROJECTOR_ENDINGS.get(source.checkpoint.projector_type, ()):
        inputs = vision.hidden_size if ending in ("weight", "0.weight") else text_config.hidden_size
        shape = (text_config.hidden_size, inputs) if ending.endswith("weight") else (text_config.hidden_size,)
        shapes[PROJECTOR_PREFIX + ending] = torch.Size(shape)
    return {key: shape for key, shape in shapes.items() if not key.endswith(BUFFER_ENDINGS)}


def grow_vocabulary(source: OriginalSource, key: str, weight: torch.Tensor, tokenizer: Any) -> torch.Tensor:
    """Return an embedding or output matrix with a row for every token; new rows are the mean of the old ones.

    A projector-only checkpoint may carry the embeddings of `<im_start>` and `<im_end>` alone (two rows): they are put
    behind the base's rows.
    """
    if source.base is not None and key in source.trained and weight.shape[0] <= len(source.checkpoint.extra_tokens):
        start = tokenizer.convert_tokens_to_ids(IMAGE_START_TOKEN)
        old = _padded(source.base_tensor(key), start)[:start]
        weight = torch.cat([old, weight.to(old.dtype)])
    return _padded(weight, len(tokenizer))


def _padded(weight: torch.Tensor, rows: int) -> torch.Tensor:
    """Return `weight` with at least `rows` rows."""
    lacking = rows - weight.shape[0]
    if lacking <= 0:
        return weight
    mean = weight.float().mean(dim=0, keepdim=True).to(weight.dtype)
    return torch.cat([weight, mean.expand(lacking, -1)])


def hf_tensors(projector_type: str, key: str, tensor: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the HF-native weights that an original weight becomes, under the names of released HF-native files."""
    if key.startswith(TOWER_PREFIX):
        yield f"vision_tower.vision_model.{key.removeprefix(TOWER_PREFIX)}", tensor
    elif key.startswith(PROJECTOR_PREFIX):
        name = key.removeprefix(PROJECTOR_PREFIX)
        if projector_type == "linear":
            yield f"multi_modal_projector.linear_1.{name}", tensor
            if name == "weight":
                yield from _identity_layers(tensor.shape[0], ("linear_2",), tensor.dtype)
        else:
            layer = {"0": "linear_1", "2": "linear_2"}[name[0]]
            yield f"multi_modal_projector.{layer}.{name[2:]}", tensor
    else:
        yield f"language_model.{key}", tensor


def _identity_layers(
    width: int, layers: tuple[str, ...], dtype: torch.dtype = torch.float32
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield linear layers that pass their input through unchanged, to the last bit."""
    for layer in layers:
        yield f"multi_modal_projector.{layer}.weight", torch.eye(width, dtype=dtype)
        yield f"multi_modal_projector.{layer}.bias", torch.zeros(width, dtype=dtype)


def _hf_config(source: OriginalSource, text_config: Any, tokenizer: Any) -> Any:
    """Return the LlavaConfig."""
    from transformers import LlavaConfig

    checkpoint, tower = source.checkpoint, source.tower_config
    patches = (tower.image_size // tower.patch_size) ** 2
    return LlavaConfig(
        vision_config=tower,
        text_config=text_config,
        architectures=["LlavaForConditionalGeneration"],
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
        image_seq_length=patches + int(checkpoint.keeps_cls),
        projector_hidden_act="gelu" if checkpoint.projector_type == "mlp2x_gelu" else "linear",
        vision_feature_layer=checkpoint.select_layer,
        vision_feature_select_strategy="full" if checkpoint.keeps_cls else "default",
        tie_word_embeddings=text_config.tie_word_embeddings,
        # Of the weights as they are: the config of a LoRA checkpoint tells how it was trained instead.
        dtype=str(source.dtype).removeprefix("torch."),
    )


def _processor(source: OriginalSource, tokenizer: Any, template: str) -> Any:
    """Return the processor: the tower's own picture preparation, padded to a square where the config says so."""
    from transformers import CLIPImageProcessor, LlavaImageProcessor, LlavaProcessor

    side = source.tower_config.image_size
    with explain_loading(f"the picture preparation of vision tower {source.tower}", "fetch the tower again"):
        if (source.tower / "preprocessor_config.json").is_file():
            plain = CLIPImageProcessor.from_pretrained(source.tower)
        else:
            plain = CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
        settings = {k: v for k, v in plain.to_dict().items() if not k.endswith("_type")}
        pictures = LlavaImageProcessor(**{**settings, "do_pad": source.checkpoint.pads_to_square})
    return LlavaProcessor(
        image_processor=pictures,
        tokenizer=tokenizer,
        patch_size=source.tower_config.patch_size,
        vision_feature_select_strategy="full" if source.checkpoint.keeps_cls else "default",
        num_additional_image_tokens=1,
        image_token=IMAGE_TOKEN,
        chat_template=template,
    )


def _generation_config(text_config: Any, tokenizer: Any, version: str | None) -> Any:
    """Return the generation config: ends, and the turn separator of v0, which is text and not a token."""
    from transformers import GenerationConfig

    return GenerationConfig(
        bos_token_id=text_config.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        stop_strings=["###"] if version == "v0" else None,
    )
