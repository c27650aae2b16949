"""The LLaVA that is trained: found or composed, loaded, and frozen where the stage does not train it."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Optional

import torch

from llava.errors import InputError
from llava.files import read_json
from llava.model.answering.prompts import PROMPT_VERSIONS, chat_template
from llava.model.embedded.stack import BASE_ID, EMBEDDED, resolve_base_name
from llava.model.hub import fetch
from llava.model.language_model import is_vision_language
from llava.model.llava_checkpoints.adapter import KEPT_WHOLE, find_adapter
from llava.model.llava_checkpoints.compose import composed_folder, release_projector
from llava.model.llava_checkpoints.to_original import check_expressible
from llava.model.loading import load_network, load_processor, native_source
from llava.train.arguments import ModelArguments, option
from llava.train.base import loading_options
from llava.train.lora import add_adapter

logger = logging.getLogger(__name__)

PROJECTOR = "multi_modal_projector"
TOWER = "vision_tower"
TOWER_LAYER = re.compile(r"\.layers\.(\d+)\.")


@dataclass
class LlavaModelArguments(ModelArguments):
    """What is trained."""

    stage: Literal["pretrain", "finetune"] = option(
        "finetune", "pretrain: the projector alone. finetune: the language model and the projector."
    )
    base: str = option(
        "embedded", "LLaVA (HF-native or original format) by folder or hub id; a language model with --vision-tower."
    )
    vision_tower: Optional[str] = option(  # noqa: UP045 - HfArgumentParser on Python 3.10
        None, "CLIP tower by folder or hub id, for a new LLaVA on a language model (--stage pretrain)."
    )
    prompt_version: Optional[str] = option(  # noqa: UP045
        None, "Prompt of a new LLaVA: v0, v1 or llama_2; by default the language model's own, or v1 where it has none."
    )
    train_vision_tower: bool = option(False, "Train the vision tower too, up to the layer whose features are used.")
    lora: bool = option(False, "Train a LoRA adapter on the language model instead of all its weights.")
    lora_r: int = option(128, "Rank of the adapter.")
    lora_alpha: int = option(256, "Scale of the adapter; its product is multiplied by alpha / r.")

    def __post_init__(self) -> None:
        """Check what goes together."""
        if self.stage == "pretrain" and (self.lora or self.train_vision_tower):
            raise InputError("--stage pretrain trains the projector alone; leave out --lora and --train-vision-tower")
        if self.load_in_4bit and not self.lora:
            raise InputError("--load-in-4bit freezes the language model and goes with --lora only; add it")
        if self.lora and self.train_vision_tower:
            raise InputError("--train-vision-tower goes with full fine-tuning; leave out --lora")
        if self.prompt_version not in (None, *PROMPT_VERSIONS):
            raise InputError(f"--prompt-version is {self.prompt_version}; choose one of {', '.join(PROMPT_VERSIONS)}")
        super().__post_init__()

    @property
    def frozen_base(self) -> bool:
        """Whether the language model's weights stay as they are."""
        return self.lora or self.stage == "pretrain"


@dataclass(frozen=True)
class LlavaSource:
    """Where the model to train is loaded from."""

    folder: str
    """HF-native checkpoint."""
    name: str
    """What the adapter records as its base."""
    language_model: str = ""
    """Name of the language model; empty when the base was a whole LLaVA."""
    vision_tower: str = ""
    """Name of the tower; empty when the base was a whole LLaVA."""


def find_llava(arguments: LlavaModelArguments, seed: int) -> LlavaSource:
    """Return the LLaVA to start from; a new one is composed when the base is a language model.

    Raises:
        InputError: When there is no such model, or base, tower and stage do not go together.
    """
    if find_adapter(arguments.base) is not None:
        raise InputError(f"--base {arguments.base} is an adapter; merge it first (scripts/merge_lora_weights.py)")
    language = _language_model(arguments)
    if language is None:
        folder = native_source(arguments.base, vision_tower=arguments.vision_tower)
        return LlavaSource(folder, arguments.base_name or arguments.base)
    if arguments.vision_tower is None:
        raise InputError(f"--base {arguments.base} is a language model; add --vision-tower for a new LLaVA on it")
    if arguments.stage != "pretrain":
        raise InputError(f"--base {arguments.base} has no trained projector; begin with --stage pretrain")
    folder = str(composed_folder(language, arguments.vision_tower, seed=seed, prompt_version=arguments.prompt_version))
    recorded = arguments.base_name or language
    return LlavaSource(folder, recorded, language_model=recorded, vision_tower=arguments.vision_tower)


def _language_model(arguments: LlavaModelArguments) -> str | None:
    """Return the name of the language model that the base is; None when it is a whole LLaVA."""
    if arguments.base == EMBEDDED:
        return None if arguments.vision_tower is None else BASE_ID
    folder = fetch(resolve_base_name(arguments.base), "base model", "check --base", ["config.json"])
    config = read_json(folder / "config.json", "model config")
    return None if is_vision_language(config) else arguments.base


def load_llava_processor(source: LlavaSource) -> Any:
    """Load the processor; one without a chat template gets LLaVA's v1, which the prompts at inference follow too.

    Raises:
        InputError: When the model is not a LLaVA whose pictures all take the same number of positions.
    """
    from transformers import LlavaProcessor

    processor = load_processor(source.folder, source.name)
    if not isinstance(processor, LlavaProcessor):
        raise InputError(f"--base {source.name} has a {type(processor).__name__}; only LLaVA 1.0 and 1.5 are trained")
    processor.chat_template = processor.chat_template or chat_template("v1", processor.image_token)
    return processor


def load_llava(
    source: LlavaSource, arguments: LlavaModelArguments, seed: int, device: torch.device | None = None
) -> Any:
    """Load the model to train: what is trained in single precision, the rest frozen.

    Args:
        source: Where it is loaded from.
        arguments: Stage and choices.
        seed: Of the adapter's weights.
        device: Where it will be trained; None detects.
    """
    options = loading_options(arguments, device)
    if "quantization_config" in options:
        options["quantization_config"].llm_int8_skip_modules = list(KEPT_WHOLE)
    model = load_network(source.folder, source.name, options)
    for name, parameter in model.named_parameters():
        parameter.requires_grad = is_trained(name, model.config, arguments)
    projector = model.model.multi_modal_projector.float()
    # A tower in half precision hands on half-precision features.
    projector.register_forward_pre_hook(lambda module, inputs: (inputs[0].to(next(module.parameters()).dtype),))
    torch.manual_seed(seed)  # how much randomness loading takes depends on how the weights are shared out
    return add_adapter(model, arguments, "CAUSAL_LM", head=PROJECTOR, exclude=rf".*({PROJECTOR}|{TOWER}).*")


def is_trained(name: str, config: Any, arguments: LlavaModelArguments) -> bool:
    """Tell whether a stage trains a weight in full.

    Args:
        name: The weight's name in `LlavaForConditionalGeneration`.
        config: The model's config.
        arguments: Stage and choices.
    """
    if PROJECTOR in name:
        return True
    if TOWER in name:
        return arguments.train_vision_tower and gives_features(name, config)
    return not arguments.frozen_base


def gives_features(name: str, config: Any) -> bool:
    """Tell whether a weight of the tower takes part in the features: those behind the chosen layer never do."""
    chosen = config.vision_feature_layer
    layers = config.vision_config.num_hidden_layers
    # hidden_states[0] is what goes into layer 0, hidden_states[-1] what comes out of the last.
    used = max(layer % (layers + 1) for layer in ([chosen] if isinstance(chosen, int) else chosen))
    match = TOWER_LAYER.search(name)
    return int(match[1]) < used if match else "post_layernorm" not in name


@contextmanager
def vision_in_graph(llava: Any, active: bool) -> Iterator[None]:
    """Let a batch without pictures depend, times zero, on the weights that only pictures reach.

    Distributed training waits for a gradient of every trained weight in every step, and the optimiser must do the same
    with one process as with eight.

    Args:
        llava: The `LlavaForConditionalGeneration`.
        active: Whether the batch has no pictures.
    """
    if not active:
        yield
        return

    def add_nothing(_: Any, inputs: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        embeddings = named["inputs_embeds"]
        return inputs, {**named, "inputs_embeds": embeddings + _vision_zero(llava).to(embeddings.dtype)}

    handle = llava.model.language_model.register_forward_pre_hook(add_nothing, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _vision_zero(llava: Any) -> torch.Tensor:
    """Return a zero that was computed by the projector, and by the tower when that is trained."""
    config, tower = llava.config, llava.model.vision_tower
    chosen, side = config.vision_feature_layer, config.vision_config.image_size
    width = config.vision_config.hidden_size * (1 if isinstance(chosen, int) else len(chosen))
    like = next(llava.model.multi_modal_projector.parameters())
    features = like.new_zeros(1, 1, width)
    if any(parameter.requires_grad for parameter in tower.parameters()):
        features = features + 0 * tower(like.new_zeros(1, 3, side, side)).last_hidden_state.sum()
    return 0 * llava.model.multi_modal_projector(features).sum()


def release_folder(folder: str, model: Any, processor: Any, source: LlavaSource, state: dict[str, Any]) -> None:
    """Write the projector's own release into `folder/mm_projector`, where the original format can express the model.

    Args:
        folder: The checkpoint's folder.
        model: The trained model.
        processor: Its processor.
        source: Names of language model and tower, which the release records.
        state: All weights.
    """
    try:
        check_expressible(Path(folder), model.config)
    except InputError as error:
        logger.info("mm_projector is not written: %s", error)
        return
    weights = {key.rpartition(f"{PROJECTOR}.")[2]: value for key, value in state.items() if PROJECTOR in key}
    names = {"base": source.language_model, "vision_tower": source.vision_tower}
    release_projector(Path(folder) / "mm_projector", model.config, processor, weights, **names)
