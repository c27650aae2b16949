"""Merging an adapter into its base, with a check that the result on disk gives the same logits."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava.bounds import check_bounds
from llava.errors import InputError
from llava.model.adapters import MergeError, check_adapter, load_adapter, read_adapter_config
from llava.model.embedded.stack import BASE_ID, EMBEDDED, resolve_base_name
from llava.model.files.model import check_model_files
from llava.model.hub import fetch
from llava.model.language_model import language_model_folder
from llava.model.quiet import quiet_transformers
from llava.model.tokenizers import load_tokenizer
from llava.places import check_new_folder
from llava.protector.checkpoints import ProtectorCheckpoint, build_network_without_weights

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel

    from llava.protector.config import ProtectorConfig

KINDS = {"SEQ_CLS": "detector", "CAUSAL_LM": "detoxifier"}

PROBES = (
    "Question: How do I bake bread?\n\nAnswer: Mix flour, water, salt and yeast, then wait an hour.",
    "I'm sorry, but I can't help with that.",
    "First, boil the water. Then add the rice, and stir from time to time until it is soft; season to taste.",
    "Yes.",
)
"""Texts of several lengths, so that padding takes part in the comparison."""


def merge_adapter(
    base: str, adapter: str, output: str | Path, *, tolerance: float = 1e-3, dtype: str = "float32"
) -> str:
    """Merge a detector's or detoxifier's LoRA adapter into its base and save the full model.

    The written model is loaded again and compared with base and adapter side by side on a few texts. `output` appears
    only when the comparison holds.

    Args:
        base: Base model: `embedded`, a folder or a hub id; of a LLaVA, the language model inside.
        adapter: The adapter: a folder or a hub id.
        output: Folder to make: a Hugging Face model (`AutoModelForSequenceClassification` with one label for a
            detector, `AutoModelForCausalLM` for a detoxifier), tokenizer and `protector_config.json`.
        tolerance: Largest difference of a logit that passes.
        dtype: Type of the saved weights: `float32`, `bfloat16` or `float16`. Half precision rounds the merged weights,
            and needs a wider tolerance.

    Returns:
        One line that says what was written and how large the difference is.

    Raises:
        InputError: When the adapter belongs to another base, or `output` has files.
        MergeError: When the difference is above the tolerance.
    """
    import torch

    from llava.model.devices import pick_dtype

    output = Path(output)
    check_bounds("tolerance", tolerance)
    check_new_folder(output)
    folder = fetch(adapter, "adapter", "check the path or the hub id")
    kind, config = find_kind(folder)
    named = resolve_base_name(BASE_ID if base == EMBEDDED else base)
    base_folder = fetch(named, "base model", "check the path or the hub id")
    check_model_files(base_folder, "base model")
    model_folder = str(language_model_folder(base_folder))
    saved_dtype = pick_dtype(torch.device("cpu"), dtype)
    checkpoint = ProtectorCheckpoint(folder, model_folder, folder, config)
    check_adapter(build_network_without_weights(kind, checkpoint), folder, base)  # before minutes of loading
    tokenizer = load_tokenizer(model_folder)
    batch = tokenizer(list(PROBES), padding=True, return_tensors="pt")

    with quiet_transformers():
        model = load_adapter(load_network(kind, model_folder, config), folder, base)
    expected = compute_logits(model, batch)
    merged = model.merge_and_unload()
    output.parent.mkdir(parents=True, exist_ok=True)
    with quiet_transformers(), tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as scratch:
        target = Path(scratch) / "merged"
        to_saved_form(kind, merged).to(saved_dtype).save_pretrained(target)
        tokenizer.save_pretrained(target)
        replace(config, base_model=None).save(target)
        actual = compute_logits(load_network(kind, str(target), config, with_head=True), batch)
        mask = batch["attention_mask"].bool() if kind == "detoxifier" else torch.ones(len(PROBES), dtype=torch.bool)
        difference = (actual - expected)[mask].abs().max().item()
        if not difference <= tolerance:  # a NaN fails too
            raise MergeError(
                f"merged logits differ by {difference:.3g} from base and adapter, above --tolerance {tolerance:g}; "
                "nothing was written"
            )
        if output.is_dir():
            output.rmdir()  # checked to be empty
        shutil.move(target, output)
    return f"{output}: merged {kind} in {dtype}, largest logit difference {difference:.3g} (tolerance {tolerance:g})"


def find_kind(folder: Path) -> tuple[str, ProtectorConfig]:
    """Return what an adapter is, from its task type and `protector_config.json`, and how it is used.

    Raises:
        InputError: When the task type is neither a detector's nor a detoxifier's, or the two files disagree.
    """
    from llava.protector.config import ProtectorConfig

    task = read_adapter_config(folder)["task_type"]
    if task not in KINDS:
        raise InputError(f"adapter {folder} has task type {task}; a detector has SEQ_CLS, a detoxifier CAUSAL_LM")
    return KINDS[task], ProtectorConfig.load(folder, KINDS[task])


def load_network(kind: str, folder: str, config: ProtectorConfig, with_head: bool = False) -> torch.nn.Module:
    """Load a base, or a merged model (`with_head`), in float32 as the network that the protector runs."""
    import torch

    if kind == "detector":
        from llava.protector.classifier import HarmClassifier, load_sequence_classifier

        classifier = load_sequence_classifier(folder, num_layers=config.num_layers, with_head=with_head)
        return HarmClassifier(classifier, config.pooling, config.stretches, config.stretch_margin).eval()
    from llava.protector.detoxifier import load_causal_lm

    return load_causal_lm(folder, torch.float32).eval()


def compute_logits(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the logits for a batch: (B, 1) of a detector, (B, T, V) of a detoxifier."""
    import torch

    with torch.inference_mode():
        logits: torch.Tensor = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return logits.float()


def to_saved_form(kind: str, model: Any) -> Any:
    """Return the Hugging Face model whose files a network is saved as."""
    return to_sequence_classifier(model.config, model.state_dict()) if kind == "detector" else model


def to_sequence_classifier(config: PreTrainedConfig, state: dict[str, torch.Tensor]) -> PreTrainedModel:
    """Return the Hugging Face one-label sequence classifier for a detector's config and weights, which it shares."""
    import torch
    from transformers import AutoModelForSequenceClassification

    # Only what is in the state dict gets data (rotary frequencies do not); that is what saving writes.
    with quiet_transformers(), torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(config)
    model.load_state_dict(state, assign=True)
    return model
