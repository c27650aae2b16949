"""The original LLaVA forward, written straight from its description, as the yardstick for conversions.

Layer -2 of the CLIP tower without its first position, the projector, and the picture's features put into the token
embeddings where the ids have -200. It shares no code with `hf_writer` or with transformers' LLaVA classes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from llava.model.files.adapter import read_adapter_config
from llava.model.files.tensors import read_tensors, weight_files
from llava.model.llava_checkpoints.format import (
    ADAPTER_FILES,
    IMAGE_TOKEN_INDEX,
    PROJECTOR_PREFIX,
    TOWER_PREFIX,
    Kind,
    tower_key,
)
from llava.model.llava_checkpoints.layers import WeightFiles, build_empty, stream_weights
from llava.model.llava_checkpoints.source import OriginalSource
from llava.model.quiet import quiet_transformers

EMBEDDINGS = "model.embed_tokens.weight"
TIED = "language_model.embed_tokens.weight"
"""What an output layer that is tied to the embeddings reads."""
PROJECTOR_ENDINGS = {"linear": ("weight", "bias"), "mlp2x_gelu": ("0.weight", "0.bias", "2.weight", "2.bias")}
PROBE_TEXT = "USER: {image}What is in this picture? ASSISTANT:"


class OriginalLlava:
    """A LLaVA that computes as the original code does, from the original's files, in single precision.

    Its weights stay on disk; each layer's are in memory while it runs.

    Args:
        source: The checkpoint with its base and tower.
    """

    def __init__(self, source: OriginalSource):
        from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, CLIPVisionModel

        self.checkpoint = source.checkpoint
        weights = OriginalWeights(source)
        config = self.checkpoint.text_config()
        config.vocab_size = weights.count_rows()
        self.language_model = build_empty(lambda: MODEL_FOR_CAUSAL_LM_MAPPING[type(config)](config))
        stream_weights(self.language_model, weights.read_language)
        self.projector = {
            name: weights.read(PROJECTOR_PREFIX + name).float()
            for name in PROJECTOR_ENDINGS.get(self.checkpoint.projector_type, ())
        }
        self.tower = build_empty(lambda: CLIPVisionModel(source.tower_config))
        stream_weights(self.tower, weights.read_tower)

    def image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the projected features (P, D) of one picture (1, 3, S, S)."""
        hidden = self.tower(pixels, output_hidden_states=True).hidden_states[self.checkpoint.select_layer][0]
        features = hidden if self.checkpoint.keeps_cls else hidden[1:]
        weights = self.projector
        if self.checkpoint.projector_type == "identity":
            return features
        if self.checkpoint.projector_type == "linear":
            return functional.linear(features, weights["weight"], weights["bias"])
        inner = functional.gelu(functional.linear(features, weights["0.weight"], weights["0.bias"]))
        return functional.linear(inner, weights["2.weight"], weights["2.bias"])

    @torch.inference_mode()
    def logits(self, ids: list[int], pixels: torch.Tensor | None) -> torch.Tensor:
        """Return logits (T, V); `ids` holds -200 where the picture goes, which takes P positions of T."""
        embed = self.language_model.get_input_embeddings()
        parts = []
        for token in ids:
            if token == IMAGE_TOKEN_INDEX:
                assert pixels is not None
                parts.append(self.image_features(pixels))
            else:
                parts.append(embed(torch.tensor([token])))
        return self.language_model(inputs_embeds=torch.cat(parts)[None]).logits[0]


class OriginalWeights:
    """The weights of an original checkpoint under its own names, as the original code would load them."""

    def __init__(self, source: OriginalSource):
        """Note where each weight is; what was trained beside a base, which is little, is read."""
        self.source = source
        self.files = WeightFiles(source.language_files, _plain_tower_name)
        self.trained = {_plain_tower_name(key): weight for key, weight in self._read_trained().items()}
        self.updates = read_updates(source.checkpoint.folder) if source.checkpoint.kind is Kind.LORA else {}
        tower = [] if self._holds_tower() else weight_files(source.tower)
        self.tower_files = WeightFiles(tower, tower_key)

    def read(self, name: str) -> torch.Tensor:
        """Return a weight in the type that the original runs it in."""
        weight = self.trained[name] if name in self.trained else self.files.read(name)
        if name in self.updates:
            weight = (weight.float() + self.updates[name]()).to(weight.dtype)
        return weight.to(self.source.dtype)

    def read_language(self, name: str) -> torch.Tensor:
        """Return a weight of the language model."""
        if name == "lm_head.weight" and self.source.checkpoint.text_config().tie_word_embeddings:
            name = EMBEDDINGS
        return self.read(name)

    def read_tower(self, name: str) -> torch.Tensor:
        """Return a weight of the vision tower, from inside the checkpoint where it is there."""
        if self._holds_tower():
            return self.read(TOWER_PREFIX + tower_key(name))
        return self.tower_files.read(tower_key(name)).to(self.source.dtype)

    def count_rows(self) -> int:
        """Return the rows of the vocabulary."""
        return len(self.trained[EMBEDDINGS]) if EMBEDDINGS in self.trained else self.files.shape(EMBEDDINGS)[0]

    def _holds_tower(self) -> bool:
        """Tell whether the checkpoint has a tower of its own."""
        return any(key.startswith(TOWER_PREFIX) for key in (*self.files.places, *self.trained))

    def _read_trained(self) -> dict[str, torch.Tensor]:
        """Return what replaces the base's weights.

        Embeddings of picture tokens alone go behind the base's, where the original's tokenizer puts those tokens.
        """
        trained, extra = dict(self.source.trained), len(self.source.checkpoint.extra_tokens)
        new = trained.get(EMBEDDINGS)
        if new is not None and new.shape[0] <= extra:
            old, head = self.files.read(EMBEDDINGS), self.files.read("lm_head.weight")
            filler = torch.zeros(extra - new.shape[0], old.shape[1], dtype=old.dtype)
            trained[EMBEDDINGS] = torch.cat([old, filler, new.to(old.dtype)])
            trained["lm_head.weight"] = torch.cat([head, torch.zeros(extra, head.shape[1], dtype=head.dtype)])
        return trained


def _plain_tower_name(key: str) -> str:
    """Return a weight's name, of the tower inside a checkpoint without what some versions put before it."""
    return TOWER_PREFIX + tower_key(key.removeprefix(TOWER_PREFIX)) if key.startswith(TOWER_PREFIX) else key


def read_updates(folder: Path) -> dict[str, Callable[[], torch.Tensor]]:
    """Return, by the name of the weight that it is added to, what computes each update of a LoRA: scale · B A.

    Written from the paper (arXiv 2106.09685, section 4.1), without the converter's code; a test compares it with PEFT.
    """
    config = read_adapter_config(folder)
    scale = config["lora_alpha"] / (config["r"] ** 0.5 if config["use_rslora"] else config["r"])
    file = next(folder / name for name in ADAPTER_FILES if (folder / name).is_file())
    tensors = {key.replace(".default.", "."): tensor.float() for key, tensor in read_tensors(file).items()}

    def multiply(down: str, up: str) -> torch.Tensor:
        return scale * tensors[up] @ tensors[down]

    return {
        f"{key.removeprefix('base_model.model.').removesuffix('.lora_A.weight')}.weight": functools.partial(
            multiply, key, key.replace(".lora_A.", ".lora_B.")
        )
        for key in tensors
        if key.endswith(".lora_A.weight")
    }


def logit_difference(source: OriginalSource, hf_folder: Path) -> float:
    """Return the largest difference between logits of the original and of its HF-native form, in single precision.

    One probe has a picture, one has none. The weights of both stay on disk: memory holds a layer, not a model.
    """
    from PIL import Image
    from transformers import AutoProcessor

    with quiet_transformers():
        processor = AutoProcessor.from_pretrained(hf_folder)
        picture = Image.linear_gradient("L").convert("RGB").resize((320, 200))
        probes = [
            processor(text=PROBE_TEXT.format(image=f"{processor.image_token}\n"), images=picture, return_tensors="pt"),
            processor(text=PROBE_TEXT.format(image=""), return_tensors="pt"),
        ]
        model = open_hf(hf_folder)
        with torch.inference_mode():
            ours = [model(**probe).logits[0] for probe in probes]
        original = OriginalLlava(source)
        theirs = [
            original.logits(
                _collapse(probe["input_ids"][0].tolist(), model.config.image_token_id), probe.get("pixel_values")
            )
            for probe in probes
        ]
    # New rows of the vocabulary have no counterpart; config.json says how many the checkpoint has.
    rows = min(ours[0].shape[-1], theirs[0].shape[-1], source.checkpoint.text_config().vocab_size)
    return max(float((a[:, :rows] - b[:, :rows]).abs().max()) for a, b in zip(ours, theirs, strict=True))


def _collapse(ids: list[int], image_token_id: int) -> list[int]:
    """Return ids with each run of picture positions as one -200."""
    before = [None, *ids]
    kept = [
        token for token, last in zip(ids, before, strict=False) if token != image_token_id or last != image_token_id
    ]
    return [IMAGE_TOKEN_INDEX if token == image_token_id else token for token in kept]


def open_hf(folder: Path) -> Any:
    """Return transformers' own LLaVA over the weights of an HF-native checkpoint, which stay on disk."""
    from transformers import AutoConfig, LlavaForConditionalGeneration

    config = AutoConfig.from_pretrained(folder)
    files = WeightFiles(weight_files(folder), plain_hf_name)

    def read(name: str) -> torch.Tensor:
        plain = plain_hf_name(name)
        return files.read(TIED if plain == "lm_head.weight" and config.tie_word_embeddings else plain)

    network = build_empty(lambda: LlavaForConditionalGeneration(config))
    stream_weights(network, read)
    return network


def plain_hf_name(name: str) -> str:
    """Return one name for what versions of transformers call differently, in files and in the network.

    Example:
        >>> plain_hf_name("language_model.model.norm.weight"), plain_hf_name("model.language_model.norm.weight")
        ('language_model.norm.weight', 'language_model.norm.weight')
        >>> plain_hf_name("language_model.lm_head.weight"), plain_hf_name("lm_head.weight")
        ('lm_head.weight', 'lm_head.weight')
    """
    plain = name.removeprefix("model.")
    for part, inner in (("language_model.", "model."), ("vision_tower.", "vision_model.")):
        if plain.startswith(part):
            plain = part + plain.removeprefix(part).removeprefix(inner)
    return plain.removeprefix("language_model.") if plain.startswith("language_model.lm_head.") else plain
