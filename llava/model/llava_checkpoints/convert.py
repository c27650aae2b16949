"""Converting LLaVA checkpoints between the original format and the HF-native one, and proving the result."""

from __future__ import annotations

import hashlib
from pathlib import Path

from llava.errors import FailedRunError, InputError
from llava.model.answering.prompts import PROMPT_VERSIONS
from llava.model.cache import build_once, cache_dir, folder_fingerprint, write_folder_atomic
from llava.model.hub import fetch
from llava.model.llava_checkpoints.format import TOWER_FOLDER, OriginalCheckpoint, recognise
from llava.model.llava_checkpoints.source import HUB_PATTERNS, OriginalSource
from llava.places import check_new_folder

MAX_LOGIT_DIFFERENCE = 1e-4


def convert_checkpoint(
    source: str | Path,
    output: str | Path,
    *,
    to: str = "hf",
    base: str | None = None,
    vision_tower: str | None = None,
    prompt_version: str | None = None,
) -> float:
    """Convert a LLaVA checkpoint and prove that the result computes the same.

    Args:
        source: Folder or hub id of the checkpoint.
        output: Folder to write; it must not exist or be empty.
        to: `hf` (from the original format) or `original` (from HF-native).
        base: Folder or hub id of the base language model, for LoRA and projector-only checkpoints that record none.
        vision_tower: Folder or hub id of the CLIP tower when `mm_vision_tower` in the config is not reachable; with
            `to="original"`, the name to record instead of the folder written.
        prompt_version: `v0`, `v1` or `llama_2`; None decides by the checkpoint's own template, else `v1`.

    Returns:
        The largest difference between the two models' logits on a probe picture and text, in single precision.

    Raises:
        InputError: When the source cannot be converted or the output is in the way.
        FailedRunError: When the logits differ by more than 1e-4; no output is left then.
    """
    target = Path(output)
    checkpoint = _check_request(source, target, to, prompt_version)
    difference = float("nan")

    def build(folder: Path) -> None:
        nonlocal difference
        if isinstance(checkpoint, OriginalCheckpoint):
            difference = _to_hf(
                OriginalSource(checkpoint, base=base, vision_tower=vision_tower), folder, prompt_version
            )
        else:
            difference = _to_original(checkpoint, folder, vision_tower or str(target.resolve() / TOWER_FOLDER))
        # Written so that a difference that is no number fails too.
        if not difference <= MAX_LOGIT_DIFFERENCE:
            raise FailedRunError(
                f"the converted checkpoint's logits differ by {difference:.2e}, more than {MAX_LOGIT_DIFFERENCE}; "
                "nothing was written"
            )

    write_folder_atomic(target, build)
    return difference


def _check_request(source: str | Path, target: Path, to: str, prompt_version: str | None) -> OriginalCheckpoint | Path:
    """Return the original checkpoint, or the HF-native folder, that is to be converted."""
    if to not in ("hf", "original"):
        raise InputError(f"--to is {to}; it must be hf or original")
    if prompt_version not in (None, *PROMPT_VERSIONS):
        raise InputError(f"--prompt-version is {prompt_version}; it must be one of {', '.join(PROMPT_VERSIONS)}")
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise InputError(f"--output {target} is not empty; give a new folder")
    check_new_folder(target)
    folder = fetch(str(source), "checkpoint", "check the path", HUB_PATTERNS)
    checkpoint = recognise(folder)
    if to == "hf":
        if checkpoint is None:
            raise InputError(f"checkpoint {source} is not of the original LLaVA format; there is nothing to convert")
        return checkpoint
    if checkpoint is not None:
        raise InputError(f"checkpoint {source} is of the original LLaVA format already; there is nothing to convert")
    return folder


def _to_hf(source: OriginalSource, folder: Path, prompt_version: str | None) -> float:
    """Write the HF-native form and return how far its logits are from the source's."""
    from llava.model.llava_checkpoints.parity import logit_difference
    from llava.model.llava_checkpoints.to_hf import write_hf

    write_hf(source, folder, prompt_version)
    return logit_difference(source, folder)


def _to_original(hf_folder: Path, folder: Path, vision_tower: str) -> float:
    """Write the original form and return how far its logits are from the source's."""
    from llava.model.llava_checkpoints.parity import logit_difference
    from llava.model.llava_checkpoints.to_original import export_original

    export_original(hf_folder, folder, vision_tower)
    written = recognise(folder)
    if written is None:
        raise FailedRunError("the written checkpoint is not recognised as an original LLaVA; nothing was written")
    return logit_difference(OriginalSource(written, vision_tower=str(folder / TOWER_FOLDER)), hf_folder)


def converted_folder(
    checkpoint: OriginalCheckpoint, *, base: str | None = None, vision_tower: str | None = None
) -> Path:
    """Return the HF-native form of an original checkpoint, converted into the cache on first use.

    The weights are checked for completeness, not the logits: that would take longer than the conversion.
    The cache's key is made of the paths, sizes and modification times of all files it depends on.
    """
    from llava.model.llava_checkpoints.to_hf import write_hf

    source = OriginalSource(checkpoint, base=base, vision_tower=vision_tower)
    key = hashlib.sha256(":".join(folder_fingerprint(folder) for folder in source.folders).encode()).hexdigest()[:16]
    return build_once(cache_dir() / f"llava-{key}", lambda folder: write_hf(source, folder))
