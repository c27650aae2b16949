"""The original LLaVA forward, written straight from its description, as the yardstick for conversions.

Layer -2 of the CLIP tower without its first position, the projector, and the picture's features put into the token
embeddings where the ids have -200. It shares no code with `hf_writer` or with transformers' LLaVA classes.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from llava.model.files.tensors import iter_tensors
from llava.model.llava_checkpoints.format import IMAGE_TOKEN_INDEX, PROJECTOR_PREFIX, TOWER_PREFIX, Kind, tower_key
from llava.model.llava_checkpoints.source import OriginalSource
from llava.model.quiet import quiet_transformers

SLICE = 8192
"""Rows of a matrix that are widened together."""
PROBE_TEXT = "USER: {image}What is in this picture? ASSISTANT:"


class OriginalLlava:
    """A LLaVA that computes as the original code does, from the original's files.

    Args:
        source: The checkpoint with its base and tower.
    """

    def __init__(self, source: OriginalSource):
        from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

        self.checkpoint = source.checkpoint
        weights = _all_weights(source)
        language = {k: v for k, v in weights.items() if not k.startswith((PROJECTOR_PREFIX, TOWER_PREFIX))}
        embeddings = language["model.embed_tokens.weight"]
        config = self.checkpoint.text_config()
        config.vocab_size = embeddings.shape[0]
        self.language_model = (
            MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
            .from_pretrained(None, config=config, state_dict=language, dtype=embeddings.dtype)
            .eval()
        )
        if self.checkpoint.kind is Kind.LORA:
            self.language_model = _with_adapter(self.language_model, self.checkpoint.folder)
        self.projector = {
            key.removeprefix(PROJECTOR_PREFIX): value.to(source.dtype).float()
            for key, value in weights.items()
            if key.startswith(PROJECTOR_PREFIX)
        }
        self.tower = _tower(source, weights)

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
        with single_precision(self.language_model):
            parts = []
            for token in ids:
                if token == IMAGE_TOKEN_INDEX:
                    assert pixels is not None
                    parts.append(self.image_features(pixels))
                else:
                    parts.append(embed(torch.tensor([token])))
            return self.language_model(inputs_embeds=torch.cat(parts)[None]).logits[0]


def logit_difference(source: OriginalSource, hf_folder: Path) -> float:
    """Return the largest difference between logits of the original and of its HF-native form, in single precision.

    One probe has a picture, one has none. The two models are in memory one after the other.
    """
    from PIL import Image
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    with quiet_transformers():
        processor = AutoProcessor.from_pretrained(hf_folder)
        picture = Image.linear_gradient("L").convert("RGB").resize((320, 200))
        probes = [
            processor(text=PROBE_TEXT.format(image=f"{processor.image_token}\n"), images=picture, return_tensors="pt"),
            processor(text=PROBE_TEXT.format(image=""), return_tensors="pt"),
        ]
        model = LlavaForConditionalGeneration.from_pretrained(hf_folder, dtype="auto").eval()
        model.model.vision_tower.float()
        model.model.multi_modal_projector.float()
        with torch.inference_mode(), single_precision(model.model.language_model), single_precision(model.lm_head):
            ours = [model(**probe).logits[0] for probe in probes]
        image_token_id = model.config.image_token_id
        del model
        original = OriginalLlava(source)
        theirs = [
            original.logits(_collapse(probe["input_ids"][0].tolist(), image_token_id), probe.get("pixel_values"))
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


@contextlib.contextmanager
def single_precision(model: nn.Module) -> Iterator[None]:
    """Compute in float32 while the weights stay in their own type: each module is widened only while it runs.

    Half-precision rounding would hide the differences looked for, and a whole float32 copy would double the memory. Nor
    are the two matrices of the vocabulary ever widened whole: of the embeddings only the rows that are looked up, of
    the output layer a slice at a time.
    """

    def widen(module: nn.Module, inputs: Any) -> None:
        for name, parameter in module.named_parameters(recurse=False):
            narrow.setdefault(parameter, parameter.data)
            if next(module.children(), None) is None:
                # Modules without parts run one at a time and can share: thousands of short-lived matrices would leave
                # the allocator's heap in pieces.
                place = (name, parameter.shape)
                if place not in wide:
                    wide[place] = torch.empty(parameter.shape, dtype=torch.float32)
                parameter.data = wide[place].copy_(parameter.data)
            else:
                parameter.data = parameter.data.float()

    def restore(module: nn.Module, inputs: Any, output: Any) -> None:
        for parameter in module.parameters(recurse=False):
            parameter.data = narrow.pop(parameter)

    narrow: dict[nn.Parameter, torch.Tensor] = {}
    wide: dict[tuple[str, torch.Size], torch.Tensor] = {}
    handles: list[RemovableHandle] = []
    sliced: list[nn.Linear] = []
    for module in model.modules():
        if type(module) is nn.Embedding:
            handles.append(module.register_forward_hook(lambda module, inputs, output: output.float()))
        elif type(module) is nn.Linear and module.out_features > SLICE:
            module.forward = functools.partial(sliced_linear, module)  # type: ignore[method-assign]
            sliced.append(module)
        else:
            handles += [module.register_forward_pre_hook(widen), module.register_forward_hook(restore)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for module in sliced:
            del module.forward


def sliced_linear(layer: nn.Linear, inputs: torch.Tensor) -> torch.Tensor:
    """Return what a layer makes of float32 inputs (..., D), its weights widened a slice of rows at a time."""
    outputs = torch.cat([functional.linear(inputs, rows.float()) for rows in layer.weight.split(SLICE)], dim=-1)
    return outputs if layer.bias is None else outputs + layer.bias.float()


def _all_weights(source: OriginalSource) -> dict[str, torch.Tensor]:
    """Return all weights but a separate tower's, by original name.

    Embeddings of picture tokens alone go behind the base's, where the original's tokenizer puts those tokens.
    """
    weights, trained = dict(iter_tensors(source.language_files)), dict(source.trained)
    extra = len(source.checkpoint.extra_tokens)
    new = trained.get("model.embed_tokens.weight")
    if new is not None and new.shape[0] <= extra:
        old, head = weights["model.embed_tokens.weight"], weights["lm_head.weight"]
        filler = torch.zeros(extra - new.shape[0], old.shape[1], dtype=old.dtype)
        trained["model.embed_tokens.weight"] = torch.cat([old, filler, new.to(old.dtype)])
        trained["lm_head.weight"] = torch.cat([head, torch.zeros(extra, head.shape[1], dtype=head.dtype)])
    return {**weights, **trained}


def _with_adapter(language_model: Any, folder: Path) -> Any:
    """Return the language model with the LoRA updates as PEFT computes them, added to its weights."""
    from peft import PeftModel
    from peft.tuners.lora import LoraLayer

    wrapped = PeftModel.from_pretrained(language_model, str(folder))
    for module in wrapped.modules():
        if isinstance(module, LoraLayer):
            weight = module.get_base_layer().weight
            weight.data = (weight.data.float() + module.get_delta_weight("default").float()).to(weight.dtype)
    return wrapped.unload()


def _tower(source: OriginalSource, weights: dict[str, torch.Tensor]) -> Any:
    """Return the CLIP tower in float32, from inside the checkpoint where it is there."""
    from transformers import CLIPVisionModel

    inside = {tower_key(k.removeprefix(TOWER_PREFIX)): v for k, v in weights.items() if k.startswith(TOWER_PREFIX)}
    if not inside:
        return CLIPVisionModel.from_pretrained(source.tower, dtype=source.dtype).float().eval()
    tower = CLIPVisionModel(source.tower_config)
    tower.load_state_dict({key: inside[tower_key(key)].to(source.dtype) for key in tower.state_dict()})
    return tower.float().eval()
