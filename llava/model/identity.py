"""What a checkpoint is, whatever its path: a digest that changes when it is retrained or replaced."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WHOLE_FILE_BYTES = 1 << 20
SAMPLES = 8
SAMPLE_BYTES = 1 << 16
CHECKPOINT_SUFFIXES = {".json", ".safetensors", ".bin", ".model", ".txt", ".jinja", ".gguf"}


@dataclass(frozen=True)
class Checkpoint:
    """A model, detector or detoxifier as the user named it, and where it lies."""

    name: str
    """As given: a folder, a hub name, a guard's specification, or `embedded`."""
    path: str
    """What `from_pretrained` gets."""
    digest: str | None
    """Digest of the folder's content; None for a hub name."""
    members: tuple[str, ...] = ()
    """Of a guard made of several: the digest, or else the path, of each."""

    @property
    def key(self) -> str:
        """What tells it from another: the digest, or else the path."""
        return self.digest or self.path

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        members = {"members": list(self.members)} if self.members else {}
        return {"name": self.name, "path": self.path, "digest": self.digest, **members}


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
