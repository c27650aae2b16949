"""Tiny LoRA adapters in the files of real ones, with random but non-zero weights."""

from __future__ import annotations

from pathlib import Path

import torch
from peft import LoraConfig, TaskType, get_peft_model
from transformers import AutoModelForCausalLM, LlavaForConditionalGeneration

from llava.protector.classifier import HarmClassifier, load_sequence_classifier
from llava.protector.config import ProtectorConfig


def _randomize(model: torch.nn.Module, seed: int) -> None:
    """Give what is fresh in the adapter weights: zero ones, or the base's own, would change nothing."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name or "lora_embedding_A" in name or (parameter.requires_grad and name.endswith(".bias")):
                parameter.normal_(std=0.2)


PLAIN = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj", "up_proj"]}


def build_detector_adapter(
    folder: Path, base: Path, seed: int = 0, lora: dict[str, object] | None = None, **config: object
) -> Path:
    """Save a detector adapter for `base` into `folder`.

    `lora` changes its plain LoRA, `config` goes into protector_config.json.
    """
    settings = ProtectorConfig(
        kind="detector", **{"base_model": str(base), "positive_label": "harmful", "max_length": 64, **config}
    )
    torch.manual_seed(seed)
    classifier = HarmClassifier(load_sequence_classifier(str(base), num_layers=settings.num_layers), settings.pooling)
    model = get_peft_model(classifier, LoraConfig(task_type=TaskType.SEQ_CLS, **{**PLAIN, **(lora or {})}))
    _randomize(model, seed)
    with torch.no_grad():
        classifier.score.modules_to_save["default"].weight.normal_(std=1.0)
    model.peft_config["default"].base_model_name_or_path = str(base)
    model.save_pretrained(folder)
    settings.save(folder)
    return folder


def build_detoxifier_adapter(
    folder: Path, base: Path, seed: int = 0, lora: dict[str, object] | None = None, rows: int | None = None
) -> Path:
    """Save a detoxifier adapter for `base` into `folder`.

    `lora` changes its plain LoRA; with `rows` it brings embeddings of that many tokens.
    """
    torch.manual_seed(seed)  # PEFT draws the A matrices
    model = AutoModelForCausalLM.from_pretrained(base)
    if rows is not None:
        model.resize_token_embeddings(rows, mean_resizing=False)
    model = get_peft_model(model, LoraConfig(task_type=TaskType.CAUSAL_LM, **{**PLAIN, **(lora or {})}))
    _randomize(model, seed)
    model.save_pretrained(folder)
    ProtectorConfig(kind="detoxifier", base_model=str(base), max_length=128).save(folder)
    return folder


def build_llava_adapter(folder: Path, base: Path, seed: int = 0) -> Path:
    """Save an adapter on a LLaVA's language model, with a projector of its own, into `folder`."""
    torch.manual_seed(seed)  # PEFT draws the A matrices
    lora = LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=4,
        lora_alpha=8,
        target_modules=["q_proj", "up_proj"],
        exclude_modules=".*vision_tower.*",
        modules_to_save=["multi_modal_projector"],
    )
    model = get_peft_model(LlavaForConditionalGeneration.from_pretrained(base), lora)
    _randomize(model, seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "modules_to_save" in name:
                parameter.normal_(std=0.2)
    model.save_pretrained(folder)
    return folder
