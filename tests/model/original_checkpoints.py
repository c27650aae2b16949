"""Writes tiny LLaVA checkpoints in the original format, laid out as the released ones are.

    python -m tests.model.original_checkpoints FOLDER

writes one of each form into FOLDER: key names, config fields, token ids, shards and file names are those of
liuhaotian/llava-v1.5-7b (mlp2x_gelu, pad), LLaVA-7b-v1 (linear, square, start and end tokens), llava-v1.5-7b-lora and
llava-pretrain-vicuna-7b-v1.3 (projector alone); only the sizes are small and the weights random.
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from safetensors.torch import save_file
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM

from tests.tiny import CORPUS

HIDDEN, VISION_HIDDEN, VOCABULARY = 32, 24, 320
LANGUAGE: dict[str, Any] = {
    "hidden_act": "silu",
    "hidden_size": HIDDEN,
    "initializer_range": 0.02,
    "intermediate_size": 64,
    "max_position_embeddings": 512,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-05,
    "tie_word_embeddings": False,
    "use_cache": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def write_tower(folder: Path, seed: int = 1, width: int = VISION_HIDDEN) -> Path:
    """Save a CLIP vision tower with its preprocessor, as `mm_vision_tower` names it (2 x 2 patches)."""
    torch.manual_seed(seed)
    config = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=32,
        patch_size=16,
        projection_dim=width,
    )
    CLIPVisionModel(config).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def write_tokenizer(folder: Path, added: tuple[str, ...] = ()) -> int:
    """Write a SentencePiece `tokenizer.model` with Llama's special tokens; return the vocabulary's size."""
    folder.mkdir(parents=True, exist_ok=True)
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_writer=model,
        model_type="bpe",
        vocab_size=VOCABULARY,
        byte_fallback=True,
        hard_vocab_limit=False,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    size = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue()).vocab_size()
    settings = {
        "tokenizer_class": "LlamaTokenizer",
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "<unk>",
        "model_max_length": 512,
        "padding_side": "right",
        "legacy": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    if added:
        table = {token: size + position for position, token in enumerate(added)}
        (folder / "added_tokens.json").write_text(json.dumps(table))
    return size + len(added)


def language_weights(vocabulary: int, seed: int = 2) -> dict[str, torch.Tensor]:
    """Return the state dict of a tiny Llama: `model.*` and `lm_head.weight`."""
    torch.manual_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, **LANGUAGE))
    # The default initialisation makes logits so small that no difference could be seen in them.
    return {key: value * (8 if value.ndim == 2 else 1) for key, value in model.state_dict().items()}


def projector_weights(kind: str, prefix: str = "model.", seed: int = 3) -> dict[str, torch.Tensor]:
    """Return `mm_projector` weights of the given type."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {
        "linear": {"weight": (HIDDEN, VISION_HIDDEN), "bias": (HIDDEN,)},
        "mlp2x_gelu": {
            "0.weight": (HIDDEN, VISION_HIDDEN),
            "0.bias": (HIDDEN,),
            "2.weight": (HIDDEN, HIDDEN),
            "2.bias": (HIDDEN,),
        },
    }[kind]
    return {f"{prefix}mm_projector.{n}": torch.randn(s, generator=generator) * 0.3 for n, s in shapes.items()}


def config(vocabulary: int, tower: Path, kind: str, **changes: Any) -> dict[str, Any]:
    """Return config.json in the order and spelling of llava-v1.5-7b."""
    return {
        "_name_or_path": "llava-tiny",
        "architectures": ["LlavaLlamaForCausalLM"],
        **LANGUAGE,
        "freeze_mm_mlp_adapter": False,
        "image_aspect_ratio": "pad",
        "image_grid_pinpoints": None,
        "mm_hidden_size": VISION_HIDDEN,
        "mm_projector_type": kind,
        "mm_resampler_type": None,
        "mm_use_im_patch_token": False,
        "mm_use_im_start_end": False,
        "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": -2,
        "mm_vision_tower": str(tower),
        "model_type": "llava",
        "pretraining_tp": 1,
        "rope_scaling": None,
        "torch_dtype": "float32",
        "transformers_version": "4.31.0",
        "tune_mm_mlp_adapter": False,
        "tune_mm_vision_resampler": False,
        "unfreeze_mm_vision_tower": False,
        "use_mm_proj": True,
        "vocab_size": vocabulary,
        **changes,
    }


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2))


def write_shards(folder: Path, weights: dict[str, torch.Tensor], suffix: str, count: int = 2) -> None:
    """Write weights as `count` shards with an index, `.bin` or `.safetensors`; one file when `count` is 1."""
    stem = "pytorch_model" if suffix == ".bin" else "model"
    keys = list(weights)
    parts = [keys[start::count] for start in range(count)]
    weight_map = {}
    for number, part in enumerate(parts, start=1):
        name = f"{stem}-{number:05}-of-{count:05}{suffix}" if count > 1 else f"{stem}{suffix}"
        tensors = {key: weights[key].contiguous() for key in part}
        if suffix == ".bin":
            torch.save(tensors, folder / name)
        else:
            save_file(tensors, folder / name, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(part, name))
    if count > 1:
        total = sum(value.nbytes for value in weights.values())
        write_json(folder / f"{stem}{suffix}.index.json", {"metadata": {"total_size": total}, "weight_map": weight_map})


def write_v15(
    folder: Path, tower: Path, *, suffix: str = ".bin", dtype: torch.dtype = torch.float32, **changes: Any
) -> Path:
    """Write a checkpoint like llava-v1.5: two-layer projector, square padding, tower elsewhere, two shards."""
    vocabulary = write_tokenizer(folder)
    weights = {**language_weights(vocabulary), **projector_weights("mlp2x_gelu")}
    # Files of that time carry this buffer too.
    weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    write_shards(folder, {key: value.to(dtype) for key, value in weights.items()}, suffix)
    write_json(
        folder / "config.json",
        config(vocabulary, tower, "mlp2x_gelu", torch_dtype=str(dtype).removeprefix("torch."), **changes),
    )
    return folder


def write_v1(folder: Path, tower: Path) -> Path:
    """Write a checkpoint like LLaVA-v1: linear projector, picture tokens in the vocabulary, one .bin file."""
    vocabulary = write_tokenizer(folder, ("<im_patch>", "<im_start>", "<im_end>"))
    write_shards(folder, {**language_weights(vocabulary), **projector_weights("linear")}, ".bin", count=1)
    changes = {"mm_use_im_start_end": True, "image_aspect_ratio": "square", "model_type": "llava_llama"}
    settings = config(vocabulary, tower, "linear", **changes)
    for field in ("mm_use_im_patch_token", "mm_projector_type", "mm_vision_select_feature"):
        del settings[field]
    write_json(folder / "config.json", settings)
    return folder


def write_with_tower(folder: Path, tower: Path) -> Path:
    """Write a checkpoint whose trained tower lies inside it; the folder named in the config has other weights."""
    vocabulary = write_tokenizer(folder)
    inside = CLIPVisionModel.from_pretrained(tower).state_dict()
    weights = {
        f"model.vision_tower.vision_tower.vision_model.{key.removeprefix('vision_model.')}": value * 1.5
        for key, value in inside.items()
    }
    weights |= {**language_weights(vocabulary), **projector_weights("mlp2x_gelu")}
    write_shards(folder, weights, ".safetensors", count=3)
    write_json(folder / "config.json", config(vocabulary, tower, "mlp2x_gelu", unfreeze_mm_vision_tower=True))
    return folder


def write_base(folder: Path) -> Path:
    """Write the base language model of the LoRA and projector-only checkpoints."""
    vocabulary = write_tokenizer(folder)
    write_shards(folder, language_weights(vocabulary), ".bin")
    write_json(
        folder / "config.json",
        {**LANGUAGE, "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": vocabulary},
    )
    return folder


def write_lora(folder: Path, tower: Path, base: Path, *, doubled: bool = True) -> Path:
    """Write a checkpoint like llava-v1.5-7b-lora: adapter, `non_lora_trainables.bin`, no tokenizer.

    `doubled` writes the keys of the other trained weights with `model.model.`, as PEFT leaves them.
    """
    rank, generator = 4, torch.Generator().manual_seed(5)
    adapter = {}
    for layer in range(LANGUAGE["num_hidden_layers"]):
        for name, inputs, outputs in (
            ("self_attn.q_proj", HIDDEN, HIDDEN),
            ("self_attn.v_proj", HIDDEN, HIDDEN),
            ("mlp.down_proj", 64, HIDDEN),
        ):
            key = f"base_model.model.model.layers.{layer}.{name}"
            adapter[f"{key}.lora_A.weight"] = torch.randn(rank, inputs, generator=generator) * 0.3
            adapter[f"{key}.lora_B.weight"] = torch.randn(outputs, rank, generator=generator) * 0.3
    folder.mkdir(parents=True)
    torch.save(adapter, folder / "adapter_model.bin")
    prefix = "base_model.model.model." if doubled else "base_model.model."
    torch.save(projector_weights("mlp2x_gelu", prefix), folder / "non_lora_trainables.bin")
    write_json(
        folder / "adapter_config.json",
        {
            "base_model_name_or_path": str(base),
            "bias": "none",
            "fan_in_fan_out": False,
            "inference_mode": True,
            "lora_alpha": 8,
            "lora_dropout": 0.05,
            "modules_to_save": None,
            "peft_type": "LORA",
            "r": rank,
            "target_modules": ["q_proj", "v_proj", "down_proj"],
            "task_type": "CAUSAL_LM",
        },
    )
    vocabulary = json.loads((base / "config.json").read_text())["vocab_size"]
    changes = {"model_type": "llava_llama", "_name_or_path": str(base), "torch_dtype": "bfloat16"}
    write_json(folder / "config.json", config(vocabulary, tower, "mlp2x_gelu", **changes))
    return folder


def write_projector(folder: Path, tower: Path, base: Path, *, tokens: bool = False) -> Path:
    """Write a projector-only checkpoint; with `tokens`, the embeddings of start and end token come with it."""
    folder.mkdir(parents=True)
    weights = projector_weights("linear")
    if tokens:
        generator = torch.Generator().manual_seed(7)
        weights["model.embed_tokens.weight"] = torch.randn(2, HIDDEN, generator=generator)
    torch.save(weights, folder / "mm_projector.bin")
    vocabulary = json.loads((base / "config.json").read_text())["vocab_size"]
    changes = {"_name_or_path": str(base), "tune_mm_mlp_adapter": True, "mm_use_im_start_end": tokens}
    write_json(folder / "config.json", config(vocabulary, tower, "linear", **changes))
    return folder


def write_all(folder: Path) -> dict[str, Path]:
    """Write one checkpoint of each form; return them by name."""
    tower, base = write_tower(folder / "clip"), write_base(folder / "base")
    return {
        "v15_bin": write_v15(folder / "v15_bin", tower),
        "v15_safetensors": write_v15(folder / "v15_safetensors", tower, suffix=".safetensors"),
        "v15_half": write_v15(folder / "v15_half", tower, dtype=torch.float16),
        "v1_linear": write_v1(folder / "v1_linear", tower),
        "tower_inside": write_with_tower(folder / "tower_inside", tower),
        "lora": write_lora(folder / "lora", tower, base),
        "lora_plain_keys": write_lora(folder / "lora_plain_keys", tower, base, doubled=False),
        "projector": write_projector(folder / "projector", tower, base),
        "projector_tokens": write_projector(folder / "projector_tokens", tower, base, tokens=True),
    }


if __name__ == "__main__":
    write_all(Path(sys.argv[1]))
