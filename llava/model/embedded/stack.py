"""The shipped stack, named by the word `embedded`: a small LLaVA that runs on a CPU, and the adapters beside it.

The LLaVA is SmolLM2-135M-Instruct with a small vision tower and a projector before it, composed once and kept in the
cache folder. The language model stays as it is, so texts are answered as ever. Tower and projector come with the
package; they read words and name coloured shapes (docs/vision_tower.md). They speak the embeddings of that one language
model: before another base stands an untrained tower, pictures carry no meaning, and the model's notes say so.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from llava.errors import InputError
from llava.fields import Fields
from llava.files import read_json, write_json
from llava.model.cache import build_once, cache_dir, folder_fingerprint
from llava.model.embedded.base_lm import BASE_ID, resolve_base, resolve_base_name
from llava.model.files.model import read_model_config
from llava.model.quiet import quiet_transformers

__all__ = [
    "BASE_ID",
    "DESCRIPTION_FILE",
    "EMBEDDED",
    "cache_dir",
    "resolve_adapter",
    "resolve_base",
    "resolve_base_name",
    "resolve_mllm",
]

EMBEDDED = "embedded"
ASSETS = Path(__file__).resolve().parents[2] / "assets"
ADAPTER_KINDS = ("detector", "detoxifier")
DESCRIPTION_FILE = "embedded.json"
"""File in a built model's folder that says what it is made of; its `notes` reach whoever loads it."""

VISION_WEIGHTS = ASSETS / "vision" / "model.safetensors"
"""Trained tower and projector, keys `vision_tower.*` and `multi_modal_projector.*` as in `LlavaModel`."""
VISION_DESCRIPTION = ASSETS / "vision" / "vision.json"
"""`vision_config` of those weights, the shape of the `language_model` they speak to, and `notes` for readers."""

RECIPE_VERSION = 2
SEED = 0
VISION = {
    "model_type": "clip_vision_model",
    "hidden_size": 192,
    "intermediate_size": 768,
    "num_hidden_layers": 4,
    "num_attention_heads": 3,
    "image_size": 224,
    "patch_size": 32,
    "projection_dim": 192,
}
"""The untrained tower before another base: a CLIP of 7 x 7 patches, 49 picture positions before the text."""
UNTRAINED_NOTE = (
    "vision tower and projector are untrained: the trained ones are for another language model than this base, "
    "so pictures carry no meaning and answers follow the text alone"
)

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}<|im_start|>system\n"
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] if part['type'] == 'image' %}<image>\n{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""SmolLM2's own chat template, with pictures before the text of their turn."""


def resolve_mllm(path_or_id: str) -> str:
    """Return what to load for a model argument: `embedded` becomes a folder, built on first use.

    Args:
        path_or_id: `embedded`, a folder or a hub id.
    """
    if path_or_id != EMBEDDED:
        return path_or_id
    base = resolve_base()
    recipe = _recipe(base)
    key = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:16]
    return str(build_once(cache_dir() / f"{EMBEDDED}-{key}", lambda folder: _build(folder, base, recipe)))


def resolve_adapter(kind: str, path_or_id: str) -> str:
    """Return what to load for a detector or detoxifier argument: `embedded` becomes the shipped folder.

    Args:
        kind: `detector` or `detoxifier`.
        path_or_id: `embedded`, a folder or a hub id.

    Raises:
        InputError: When the shipped adapter is not in this installation.
    """
    if kind not in ADAPTER_KINDS:
        raise ValueError(f"adapter kind '{kind}' is not one of {ADAPTER_KINDS}")
    if path_or_id != EMBEDDED:
        return path_or_id
    folder = ASSETS / kind
    if not folder.is_dir():
        raise InputError(f"this installation carries no embedded {kind} ({folder}); reinstall it or give a path")
    return str(folder)


def _recipe(base: Path) -> dict[str, Any]:
    """Return everything that the built model depends on."""
    recipe: dict[str, Any] = {
        "version": RECIPE_VERSION,
        "seed": SEED,
        "base": folder_fingerprint(base),
        "vision_config": VISION,
        "vision_weights": None,
        "notes": [UNTRAINED_NOTE],
        "chat_template": CHAT_TEMPLATE,
    }
    if not VISION_WEIGHTS.is_file():
        raise InputError(f"this installation carries no vision weights ({VISION_WEIGHTS}); reinstall it")
    description = read_vision_description(VISION_DESCRIPTION)
    config = read_model_config(base, "config of the base language model")
    if all(config.get(field) == value for field, value in description["language_model"].items()):
        recipe["vision_config"] = description["vision_config"]
        recipe["vision_weights"] = hashlib.sha256(VISION_WEIGHTS.read_bytes()).hexdigest()
        recipe["notes"] = description["notes"]
    return recipe


def read_vision_description(path: Path) -> dict[str, Any]:
    """Read `vision.json`: `vision_config`, the `language_model` that the vision weights speak to, `notes`.

    Raises:
        InputError: When it is missing, or a field has another type.
    """
    what = "description of the vision weights"
    fields = Fields(read_json(path, what), f"{what} {path}", "reinstall the package")
    fields.inner("vision_config").text("model_type")
    return {
        "vision_config": fields.mapping("vision_config"),
        "language_model": fields.mapping("language_model"),
        "notes": fields.texts("notes", []),
    }


def _build(folder: Path, base: Path, recipe: dict[str, Any]) -> None:
    """Compose the LLaVA from `base` by `recipe` and save it with its processor into `folder`."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    import llava.model.embedded.reading_tower  # noqa: F401 - makes the tower's type known to transformers

    with quiet_transformers():
        tokenizer = AutoTokenizer.from_pretrained(base)
        tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
        language_model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        model = _compose(language_model, tokenizer, recipe)
        model.save_pretrained(folder)
        _processor(tokenizer, recipe).save_pretrained(folder)
    trained = recipe["vision_weights"] is not None
    description = {"base": str(base), "vision_trained": trained, "notes": recipe["notes"], "recipe": recipe}
    write_json(folder / DESCRIPTION_FILE, description)


def _compose(language_model: Any, tokenizer: Any, recipe: dict[str, Any]) -> Any:
    """Return a `LlavaForConditionalGeneration` whose language model has the given weights."""
    import torch
    from transformers import AutoConfig, LlavaConfig, LlavaForConditionalGeneration

    vision = AutoConfig.for_model(**recipe["vision_config"])
    places: dict[str, Any] = {}
    if not _is_clip(recipe):
        places = {
            "vision_feature_layer": -1,
            "vision_feature_select_strategy": "full",
            "projector_hidden_act": "linear",
        }
    config = LlavaConfig(
        vision_config=vision,
        text_config=language_model.config,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=(vision.image_size // vision.patch_size) ** 2,
        tie_word_embeddings=language_model.config.tie_word_embeddings,
        **places,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe["seed"])
        model = LlavaForConditionalGeneration(config)
    model.model.language_model.load_state_dict(language_model.model.state_dict())
    model.lm_head.load_state_dict(language_model.lm_head.state_dict())
    _grow_vocabulary(model, len(tokenizer))
    if recipe["vision_weights"] is None:
        _make_neutral(model)
    else:
        _load_vision(model)
    model.generation_config = language_model.generation_config
    return model


def _grow_vocabulary(model: Any, size: int) -> None:
    """Make room for the new `<image>` token; its row is the mean of all others, as likely as an average token."""
    import torch

    old = model.get_input_embeddings().weight.shape[0]
    if size <= old:
        return
    model.resize_token_embeddings(size, mean_resizing=False)
    with torch.no_grad():
        for weight in {model.get_input_embeddings().weight, model.get_output_embeddings().weight}:
            weight[old:] = weight[:old].mean(dim=0)


def _make_neutral(model: Any) -> None:
    """Let the untrained projector give every picture position the embedding of an average token.

    Random features are far from anything that the language model has seen and turn its answers into noise.
    """
    import torch

    with torch.no_grad():
        last = model.model.multi_modal_projector.linear_2
        embeddings = model.get_input_embeddings().weight
        last.bias.copy_(embeddings.mean(dim=0))
        last.weight.mul_(embeddings.std() / last.weight.std() * 0.1)


def _load_vision(model: Any) -> None:
    """Load the packaged tower and projector; every weight of both must be there."""
    from safetensors.torch import load_file

    weights = load_file(VISION_WEIGHTS)
    for part in ("vision_tower", "multi_modal_projector"):
        own = {key.removeprefix(f"{part}."): value for key, value in weights.items() if key.startswith(f"{part}.")}
        getattr(model.model, part).load_state_dict(own)


def _is_clip(recipe: dict[str, Any]) -> bool:
    """Whether the tower is the untrained CLIP, whose first position is dropped."""
    return recipe["vision_config"]["model_type"] == VISION["model_type"]


def _processor(tokenizer: Any, recipe: dict[str, Any]) -> Any:
    """Return the processor that matches the tower."""
    from transformers import AutoConfig, CLIPImageProcessor, LlavaImageProcessor, LlavaProcessor

    vision = AutoConfig.for_model(**recipe["vision_config"])
    square = {"height": vision.image_size, "width": vision.image_size}
    if _is_clip(recipe):
        pictures = CLIPImageProcessor(size={"shortest_edge": vision.image_size}, crop_size=square)
    else:
        # Nothing of a text may be cut off: the picture is padded to a square and shrunk.
        pictures = LlavaImageProcessor(do_pad=True, do_center_crop=False, size=square, crop_size=square)
    return LlavaProcessor(
        image_processor=pictures,
        tokenizer=tokenizer,
        patch_size=vision.patch_size,
        vision_feature_select_strategy="default" if _is_clip(recipe) else "full",
        num_additional_image_tokens=1 if _is_clip(recipe) else 0,
        image_token="<image>",  # noqa: S106 - a token of the vocabulary, not a secret
        chat_template=recipe["chat_template"],
    )
