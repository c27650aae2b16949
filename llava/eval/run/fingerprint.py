"""What a run's records depend on, stored as `run.json`, so that records of two different runs never mix."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava.data.schema import Question
from llava.errors import InputError
from llava.eval.run.description import parse_description
from llava.eval.run.layout import RECORDS_FILE, RUN_FILE
from llava.eval.run.planning import hash_questions
from llava.eval.run.settings import AUTO, GenerationSettings
from llava.files import read_json

WHOLE_FILE_BYTES = 1 << 20
SAMPLES = 8
SAMPLE_BYTES = 1 << 16
CHECKPOINT_SUFFIXES = {".json", ".safetensors", ".bin", ".model", ".txt", ".jinja", ".gguf"}


@dataclass(frozen=True)
class Checkpoint:
    """A model, detector or detoxifier as the user named it, and where it lies."""

    name: str
    """As given: a folder, a hub name, or `embedded`."""
    path: str
    """What `from_pretrained` gets."""
    digest: str | None
    """Digest of the folder's content; None for a hub name."""

    def to_dict(self) -> dict[str, str | None]:
        """Return the JSON form."""
        return {"name": self.name, "path": self.path, "digest": self.digest}


def identify_checkpoint(name: str, path: str) -> Checkpoint:
    """Describe the checkpoint `name` that was found at `path` (a folder or a hub name)."""
    folder = Path(path)
    if folder.is_dir():
        return Checkpoint(name, str(folder.resolve()), digest_folder(folder))
    return Checkpoint(name, path, None)


def digest_folder(folder: Path) -> str:
    """Return a digest that changes when a checkpoint is retrained or replaced, in well under a second.

    Small files count whole. Of a large weight file the size and eight evenly spaced samples count: hashing 14 GB at
    every start would take longer than loading it, and training moves every sample.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if not path.is_file() or path.suffix not in CHECKPOINT_SUFFIXES:
            continue
        size = path.stat().st_size
        digest.update(f"{path.name}\0{size}\0".encode())
        with path.open("rb") as stream:
            if size <= WHOLE_FILE_BYTES:
                digest.update(stream.read())
                continue
            for sample in range(SAMPLES):
                stream.seek((size - SAMPLE_BYTES) * sample // (SAMPLES - 1))
                digest.update(stream.read(SAMPLE_BYTES))
    return digest.hexdigest()


def build_fingerprint(
    settings: GenerationSettings,
    questions: Sequence[Question],
    *,
    batch_size: int,
    device_type: str,
    dtype: str,
    checkpoints: dict[str, Checkpoint | None],
) -> dict[str, Any]:
    """Collect everything that can change a record.

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
        "threshold": settings.threshold,
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
