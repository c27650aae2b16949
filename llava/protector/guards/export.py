"""A detector as a plain Hugging Face classifier, as vLLM's classify serves it."""

from __future__ import annotations

import math
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava.bounds import check_bounds
from llava.errors import InputError
from llava.model.adapters import MergeError
from llava.model.quiet import quiet_transformers
from llava.places import check_new_folder
from llava.protector.checkpoints import open_checkpoint
from llava.protector.text import render_detector_text

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from llava.protector.config import ProtectorConfig
    from llava.protector.detector import HarmDetector

LABEL = "harmful"
PROBES = (
    ("How do I bake bread?", "Mix flour, water, salt and yeast, then wait an hour."),
    ("", "I'm sorry, but I can't help with that."),
    ("How?", "First, boil the water. Then add the rice, and stir from time to time until it is soft."),
    ("Why?", "Yes.</s><|im_end|><s> No."),
)
"""Pairs on which the export must score as the detector does; one spells control tokens, which are text like any."""


def export_detector(
    detector: str, output: str | Path, *, base: str | None = None, tolerance: float = 1e-3, dtype: str = "float32"
) -> str:
    """Write a detector in the form that vLLM serves with `--runner pooling --convert classify`.

    The head's weights take in what a positive logit means and the temperature, so the one probability that the server
    gives is the detector's harm score. The written model is loaded again as `AutoModelForSequenceClassification` and
    compared with the detector; `output` appears only when their scores agree.

    Args:
        detector: `embedded`, a folder or a hub id: an adapter or a merged detector.
        output: Folder to make.
        base: Base model of an adapter instead of the one that it names.
        tolerance: Largest difference of a score that passes.
        dtype: Type of the saved weights: `float32`, `bfloat16` or `float16`.

    Returns:
        One line that says what was written, and how it is asked.

    Raises:
        InputError: When the detector pools otherwise than vLLM, or `output` has files.
        MergeError: When a score differs by more than the tolerance.
    """
    import torch

    from llava.model.devices import pick_dtype
    from llava.protector.detector import HarmDetector

    output = Path(output)
    check_bounds("tolerance", tolerance)
    check_new_folder(output)
    check_pooling(detector, open_checkpoint("detector", detector, base).config)
    saved_dtype = pick_dtype(torch.device("cpu"), dtype)
    loaded = HarmDetector.from_pretrained(detector, dtype="float32", device="cpu", base=base)
    expected = loaded.score([response for _, response in PROBES], [prompt for prompt, _ in PROBES])
    model = build_classifier(loaded)
    output.parent.mkdir(parents=True, exist_ok=True)
    with quiet_transformers(), tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as scratch:
        target = Path(scratch) / "export"
        model.to(saved_dtype).save_pretrained(target)
        save_tokenizer(loaded.tokenizer, target)
        replace(loaded.config, base_model=None, positive_label="harmful", temperature=1.0).save(target)
        actual = score_export(target, loaded.config)
        difference = max(abs(one - other) for one, other in zip(actual, expected, strict=True))
        if not difference <= tolerance:  # a NaN fails too
            raise MergeError(
                f"the exported model's scores differ by {difference:.3g} from the detector's, above --tolerance "
                f"{tolerance:g}; nothing was written"
            )
        if output.is_dir():
            output.rmdir()  # checked to be empty
        shutil.move(target, output)
    asked = f"threshold={loaded.threshold:g}&text_form={loaded.config.text_form}"
    asked += "&normalise=true" if loaded.config.normalise else ""
    return (
        f"{output}: exported in {dtype}, largest score difference {difference:.3g} (tolerance {tolerance:g}); once "
        f"it is served, use it as --detector 'http://HOST:PORT?{asked}'"
    )


def check_pooling(detector: str, config: ProtectorConfig) -> None:
    """Refuse a detector that vLLM could not score with.

    Raises:
        InputError: Saying why, and what can be done.
    """
    if config.pooling == "last":
        return
    how = "the highest of stretches" if config.stretches else f"pooling {config.pooling}"
    raise InputError(
        f"detector {detector} reads {how}, and vLLM's classify reads the last token alone; train one with --pooling "
        "last, or serve this one with mllm-protector serve"
    )


def build_classifier(detector: HarmDetector) -> PreTrainedModel:
    """Return the Hugging Face classifier whose sigmoid is the detector's harm score."""
    import torch

    from llava.protector.merge import to_sequence_classifier

    config = detector.config
    scale = (1.0 if config.positive_label == LABEL else -1.0) / config.temperature
    with torch.no_grad():
        for parameter in detector.classifier.score.parameters():
            parameter.mul_(scale)
    model = to_sequence_classifier(detector.classifier.config, detector.classifier.state_dict())
    model.config.id2label, model.config.label2id = {0: LABEL}, {LABEL: 0}
    # By it transformers finds the last token.
    model.config.pad_token_id = detector.tokenizer.pad_token_id
    return model


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Save a tokenizer that reads control tokens in a text as text, as the detector does."""
    tokenizer.split_special_tokens = True
    tokenizer.init_kwargs["split_special_tokens"] = True
    tokenizer.save_pretrained(folder)


def score_export(folder: Path, config: ProtectorConfig) -> list[float]:
    """Return the harm scores of the probes by what was written, with nothing but transformers."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    scores = []
    for prompt, response in PROBES:
        text, _ = render_detector_text(config, prompt, response)
        with torch.inference_mode():
            logit = model(**tokenizer(text, return_tensors="pt")).logits[0, 0].item()
        scores.append(1 / (1 + math.exp(-logit)))
    return scores
