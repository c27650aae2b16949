"""What a run's records depend on, stored as `run.json`, so that records of two different runs never mix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llava.data.schema import Question
from llava.errors import InputError
from llava.eval.run.layout import RECORDS_FILE, RUN_FILE
from llava.eval.run.planning import hash_questions
from llava.eval.run.settings import AUTO, GenerationSettings
from llava.fields import Fields
from llava.files import read_json
from llava.model.identity import Checkpoint

CHECKPOINTS = ("model", "detector", "detoxifier", "state_head")
"""Entries of the fingerprint that describe a checkpoint."""
REMEDY = "mend it"


def build_fingerprint(
    settings: GenerationSettings,
    questions: Sequence[Question],
    *,
    batch_size: int,
    device_type: str,
    dtype: str,
    checkpoints: dict[str, Checkpoint | None],
) -> dict[str, Any]:
    """Collect everything that can change a record; `auto` and what else hangs on an earlier launch is resolved.

    The number of processes is not part of it, nor the place of the data or of the output. The seed is part of it only
    when there is sampling.

    Args:
        settings: Settings of the run.
        questions: The question list.
        batch_size: Rows of a batch, `auto` resolved.
        device_type: Kind of device (`cpu`, `cuda`): they round differently.
        dtype: Floating-point type, `auto` resolved.
        checkpoints: `model`, `detector`, `detoxifier` and what was found for them.
    """
    sampling = settings.temperature > 0
    return {
        **{part: found.to_dict() if found else None for part, found in checkpoints.items()},
        "backend": "endpoint" if settings.endpoint else "transformers",
        "base": settings.base,
        "vision_tower": settings.vision_tower,
        "threshold": settings.threshold,
        # None where nothing is trimmed, as in runs from before there was trimming.
        "trim": True if settings.trim and settings.detector else None,
        # None where the guard has weights of its own, as in runs from before they could be shared: last bits differ.
        "share_backbone": may_share(settings) or None,
        "benchmark": settings.benchmark,
        "scenarios": list(settings.scenarios) if settings.scenarios else None,
        "image_types": list(settings.image_types) if settings.image_types else None,
        "limit": settings.limit,
        "reference_typo_prompt": settings.reference_typo_prompt,
        "questions": {"count": len(questions), "sha256": hash_questions(questions)},
        "temperature": float(settings.temperature),
        "seed": settings.seed if sampling else None,
        "max_new_tokens": settings.max_new_tokens,
        "batch_size": batch_size,
        "device": device_type,
        "dtype": dtype,
        "attn_implementation": settings.attn_implementation,
        "quantisation": "8bit" if settings.load_in_8bit else "4bit" if settings.load_in_4bit else None,
    }


def read_run(output: Path) -> dict[str, Any] | None:
    """Return the content of `run.json`, or None when `output` holds no run yet.

    Raises:
        InputError: When the output is a file, holds something else, or its `run.json` cannot be read.
    """
    if output.exists() and not output.is_dir():
        raise InputError(f"--output {output} is a file; give a folder")
    if not (output / RUN_FILE).exists():
        if (output / RECORDS_FILE).exists():
            raise InputError(f"--output {output} holds records but no {RUN_FILE}; give an empty folder")
        return None
    run = read_json(output / RUN_FILE, "run file")
    if not isinstance(run, dict) or not isinstance(run.get("fingerprint"), dict):
        raise InputError(f"run file {output / RUN_FILE} has no 'fingerprint'; give another --output")
    return parse_description(run, f"run file {output / RUN_FILE}")


def resolve_stored(settings: GenerationSettings, run: dict[str, Any] | None, name: str) -> Any:
    """Return what an `auto` setting resolved to in an earlier launch of this run, or None."""
    if run is None or getattr(settings, name) != AUTO:
        return None
    return run["fingerprint"].get(name)


def resolve_trim(settings: GenerationSettings, run: dict[str, Any] | None) -> bool:
    """Return whether responses are trimmed: as asked, as in the earlier launch of this run, or yes."""
    if settings.trim is not None:
        return settings.trim
    return run is None or bool(run["fingerprint"].get("trim"))


def may_share(settings: GenerationSettings) -> bool:
    """Tell whether the guard of a run uses the weights of the model's language model where that is its base.

    Quantised ones give other scores, so those are used only where it is said.
    """
    if settings.detector is None or settings.endpoint is not None:
        return False
    return settings.share_backbone is not False and (bool(settings.share_backbone) or not settings.is_quantised)


def resolve_sharing(settings: GenerationSettings, run: dict[str, Any] | None) -> bool | None:
    """Return whether the guard shares the model's weights: as asked, as in the earlier launch of this run, or None."""
    if settings.share_backbone is not None or run is None:
        return settings.share_backbone
    if not run["fingerprint"].get("share_backbone"):
        return False
    return True if settings.is_quantised else None


def check_same_run(output: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    """Refuse to add records to a run that was made with other settings.

    Raises:
        InputError: Naming each setting that changed, old value first.
    """
    changed = [
        f"{name} {describe(old.get(name))} → {describe(new[name])}"
        for name in new
        if identity(old.get(name)) != identity(new[name])
    ]
    if changed:
        raise InputError(
            f"--output {output} holds a run with other settings ({'; '.join(changed)}); give another folder"
        )


def identity(value: Any) -> Any:
    """Return the part of a fingerprint entry that decides: of a checkpoint its content where that is known."""
    if isinstance(value, dict) and "path" in value:
        return value["digest"] or value["path"]
    return value


def describe(value: Any) -> str:
    """Return a fingerprint entry as it reads in a message."""
    if isinstance(value, dict) and "path" in value:
        return f"{value['name']} ({value['digest'][:8]})" if value["digest"] else str(value["name"])
    if isinstance(value, dict) and "sha256" in value:
        return f"{value['count']} ({value['sha256'][:8]})"
    if isinstance(value, list):
        return ",".join(map(str, value))
    return "none" if value is None else str(value)


def parse_description(values: Any, where: str) -> dict[str, Any]:
    """Check the content of `run.json`.

    Args:
        values: What the file holds.
        where: The file, for messages.

    Returns:
        The content, with empty `launches` and `versions` where there are none.

    Raises:
        InputError: Naming the first part that is of another type than `generate` writes.

    Example:
        >>> parse_description({"fingerprint": {}, "threshold": "high"}, "run file run.json")
        Traceback (most recent call last):
        llava.errors.InputError: run file run.json: 'threshold' is 'high', not a number from 0 to 1; mend it
    """
    run = Fields(values, where, REMEDY)
    _check_fingerprint(run.inner("fingerprint"))
    _check_settings(Fields(run.mapping("settings", {}), f"{where}, 'settings'", REMEDY))
    benchmark = Fields(run.mapping("benchmark", {}), f"{where}, 'benchmark'", REMEDY)
    benchmark.text("name", "")
    benchmark.texts("missing_images", [])
    benchmark.texts("notes", [])
    run.texts("model_notes", [])
    run.text("device", None)
    run.number("threshold", None, least=0, most=1)
    versions = Fields(run.mapping("versions", {}), f"{where}, 'versions'", REMEDY)
    for name in versions.values:
        versions.text(name)
    launches = run.items("launches", [])
    for number, launch in enumerate(launches, start=1):
        Fields(launch, f"{where}, launch {number}", REMEDY).number("seconds", 0.0, least=0)
    return {**run.values, "versions": dict(versions.values), "launches": launches}


def _check_fingerprint(fingerprint: Fields) -> None:
    """Check what the records depend on: three checkpoints, the questions, and plain values."""
    for name in fingerprint.values:
        if name in CHECKPOINTS:
            if fingerprint.mapping(name, None) is not None:
                checkpoint = fingerprint.inner(name)
                checkpoint.text("name")
                checkpoint.text("path")
                checkpoint.require("digest")
                checkpoint.text("digest", None)
                checkpoint.texts("members", [])
        elif name == "questions":
            questions = fingerprint.inner(name)
            questions.integer("count", least=0)
            questions.text("sha256")
        else:
            _check_plain(fingerprint, name)
    fingerprint.integer("batch_size", None, least=1)
    fingerprint.text("dtype", None)


def _check_settings(settings: Fields) -> None:
    """Check the settings as they were given: plain values, those that a summary takes over by their type."""
    for name in settings.values:
        _check_plain(settings, name)
    for name in CHECKPOINTS:
        settings.text(name, None)
    settings.integer("seed", None)
    settings.number("threshold", None, least=0, most=1)


def _check_plain(fields: Fields, name: str) -> None:
    """Refuse a value that no setting has."""
    value = fields.values[name]
    texts = isinstance(value, list) and all(isinstance(item, str) for item in value)
    if not texts and not isinstance(value, (str, int, float, bool, type(None))):
        raise fields.refuse(name, "a plain value or a list of texts")
