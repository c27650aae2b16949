"""Merging a LLaVA adapter into its base, with a check that the result on disk gives the same logits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava.errors import InputError
from llava.model.adapters import MergeError
from llava.model.cache import write_folder_atomic
from llava.model.hub import fetch
from llava.model.llava_checkpoints.adapter import VisionAdapter, find_adapter
from llava.model.llava_checkpoints.convert import convert_checkpoint
from llava.model.llava_checkpoints.format import Kind, recognise
from llava.model.llava_checkpoints.source import HUB_PATTERNS
from llava.model.quiet import quiet_transformers
from llava.places import check_new_folder

if TYPE_CHECKING:
    import torch

PROBE_TEXT = "What is in this picture?"


def merge_llava(
    adapter: str,
    base: str | None,
    output: str | Path,
    *,
    tolerance: float = 1e-3,
    dtype: str = "float32",
) -> str:
    """Merge a LLaVA adapter into its base and save the whole HF-native model with its processor.

    The written model is loaded again and compared with base and adapter side by side, with a picture and without;
    `output` appears only when they agree.

    Args:
        adapter: Folder or hub id: a PEFT adapter on an HF-native LLaVA, or a LoRA in the original LLaVA format.
        base: What it was trained on; None takes what the adapter records. The original format's is a language model.
        output: Folder to make.
        tolerance: Largest difference of a logit that passes.
        dtype: Type of the saved weights. Half precision rounds them and needs a wider tolerance.

    Returns:
        One line that says what was written and how large the difference is.

    Raises:
        InputError: When the adapter belongs to another base, or `output` has files.
        MergeError: When the difference is above the tolerance.
    """
    output = Path(output)
    check_new_folder(output)
    found = find_adapter(adapter, base)
    if found is None:
        checkpoint = recognise(fetch(adapter, "adapter", "check --model-path", HUB_PATTERNS))
        if checkpoint is None or checkpoint.kind is not Kind.LORA:
            raise InputError(f"{adapter} is no LLaVA adapter; give the folder of a LoRA checkpoint")
        difference = convert_checkpoint(adapter, output, base=base)
        return f"{output}: merged and converted, largest logit difference {difference:.3g}"
    difference = _merge(found, output, tolerance, dtype)
    return f"{output}: merged in {dtype}, largest logit difference {difference:.3g} (tolerance {tolerance:g})"


def _merge(adapter: VisionAdapter, output: Path, tolerance: float, dtype: str) -> float:
    """Write the merged model; return how far its logits are from those of base and adapter."""
    import torch

    from llava.model.adapters import load_adapter
    from llava.model.devices import pick_dtype
    from llava.model.loading import load_network, load_processor, native_source

    source = native_source(adapter.base)
    processor = load_processor(source, adapter.base)
    probes = _probes(processor)
    model = load_adapter(load_network(source, adapter.base, {"dtype": torch.float32}), adapter.folder, adapter.base)
    expected = _logits(model.eval(), probes)
    merged = model.merge_and_unload().to(pick_dtype(torch.device("cpu"), dtype))
    difference = float("nan")

    def build(folder: Path) -> None:
        nonlocal difference
        with quiet_transformers():
            merged.save_pretrained(folder)
            processor.save_pretrained(folder)
        actual = _logits(load_network(str(folder), str(folder), {"dtype": torch.float32}).eval(), probes)
        difference = max(float((a - b).abs().max()) for a, b in zip(actual, expected, strict=True))
        if not difference <= tolerance:  # a NaN fails too
            raise MergeError(
                f"merged logits differ by {difference:.3g} from base and adapter, above --tolerance {tolerance:g}; "
                "nothing was written"
            )

    write_folder_atomic(output, build)
    return difference


def _probes(processor: Any) -> list[dict[str, torch.Tensor]]:
    """Return the inputs of two prompts, one with a picture and one without."""
    from PIL import Image

    picture = Image.linear_gradient("L").convert("RGB").resize((320, 200))
    with_picture = processor(text=f"{processor.image_token}\n{PROBE_TEXT}", images=picture, return_tensors="pt")
    return [dict(with_picture), dict(processor.tokenizer(PROBE_TEXT, return_tensors="pt"))]


def _logits(model: Any, probes: list[dict[str, torch.Tensor]]) -> list[torch.Tensor]:
    """Return the logits of each probe."""
    import torch

    with torch.inference_mode():
        return [
            model(
                input_ids=p["input_ids"], attention_mask=p["attention_mask"], pixel_values=p.get("pixel_values")
            ).logits.float()
            for p in probes
        ]
