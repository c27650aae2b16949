"""Tiny LoRA adapters in the files of real ones, with random but non-zero weights."""

from __future__ import annotations

from pathlib import Path

import torch
from peft import LoraConfig, TaskType, get_peft_model
from transformers import AutoModelForCausalLM, LlavaForConditionalGeneration

from llava.protector.classifier import HarmClassifier, load_sequence_classifier
from llava.protector.config import ProtectorConfig


def _randomize(model: torch.nn.Module, seed: int) -> None:
    """Give the adapter's B matrices weights: fresh ones are zero and would change nothing."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)


def build_detector_adapter(folder: Path, base: Path, seed: int = 0, **config: object) -> Path:
    """Save a detector adapter for `base` into `folder`; `config` goes into protector_config.json."""
    settings = ProtectorConfig(
        kind="detector", **{"base_model": str(base), "positive_label": "harmful", "max_length": 64, **config}
    )
    torch.manual_seed(seed)
    classifier = HarmClassifier(load_sequence_classifier(str(base), num_layers=settings.num_layers), settings.pooling)
    lora = LoraConfig(task_type=TaskType.SEQ_CLS, r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "up_proj"])
    model = get_peft_model(classifier, lora)
    _randomize(model, seed)
    with torch.no_grad():
        classifier.score.modules_to_save["default"].weight.normal_(std=1.0)
    model.peft_config["default"].base_model_name_or_path = str(base)
    model.save_pretrained(folder)
    settings.save(folder)
    return folder


def build_detoxifier_adapter(folder: Path, base: Path, seed: int = 0) -> Path:
    """Save a detoxifier adapter for `base` into `folder`."""
    torch.manual_seed(seed)  # PEFT draws the A matrices
    lora = LoraConfig(task_type=TaskType.CAUSAL_LM, r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "up_proj"])
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), lora)
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
