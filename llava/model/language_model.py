"""The language model inside a vision-language checkpoint, as a base for the detector and the detoxifier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llava.model.cache import build_once, cache_dir, folder_fingerprint
from llava.model.files.model import read_model_config

DTYPES = ("float32", "bfloat16", "float16")


def language_model_folder(checkpoint: Path) -> Path:
    """Return a folder with the language model of a checkpoint.

    Args:
        checkpoint: A causal language model, which comes back as it is, or a vision-language model such as LLaVA
            (original or HF-native), whose language model is written into the cache folder once.
    """
    config = read_model_config(checkpoint)
    if not is_vision_language(config):
        return checkpoint
    target = cache_dir() / f"language-model-{folder_fingerprint(checkpoint)}"
    return build_once(target, lambda folder: _extract(checkpoint, config, folder))


def is_vision_language(config: dict[str, Any]) -> bool:
    """Tell whether a config is a vision-language model's.

    HF-native ones nest two configs, the original LLaVA format names its vision tower.

    Example:
        >>> is_vision_language({"model_type": "llama"}), is_vision_language({"mm_vision_tower": "openai/clip"})
        (False, True)
    """
    return "mm_vision_tower" in config or ("text_config" in config and "vision_config" in config)


def _extract(checkpoint: Path, config: dict[str, Any], folder: Path) -> None:
    """Save language model and tokenizer of a vision-language checkpoint into an empty folder."""
    import torch
    from transformers import AutoModelForCausalLM

    from llava.model.loading import load_mllm
    from llava.model.quiet import quiet_transformers

    named = config.get("dtype") or config.get("torch_dtype")
    loaded = load_mllm(checkpoint, device="cpu", dtype=str(named) if named in DTYPES else "float32")
    whole: Any = loaded.model
    with quiet_transformers(), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(whole.config.get_text_config())
    state = {f"model.{key}": value for key, value in whole.model.language_model.state_dict().items()}
    state["lm_head.weight"] = whole.get_output_embeddings().weight
    model.load_state_dict(state, assign=True)
    model.save_pretrained(folder)
    loaded.processor.tokenizer.save_pretrained(folder)
