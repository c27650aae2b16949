"""Reading and writing a checkpoint's tensors shard by shard, so that memory holds one shard, not the model."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path

import torch

from llava.errors import InputError
from llava.files import read_json, write_json

INDEX_FILES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
SINGLE_FILES = ("model.safetensors", "pytorch_model.bin")
MEBIBYTE = 1 << 20


def weight_files(folder: Path) -> list[Path]:
    """Return the files that hold a checkpoint's weights; safetensors before .bin; empty when there are none.

    Raises:
        InputError: When an index names a file that is not there.
    """
    for name in INDEX_FILES:
        if (folder / name).is_file():
            index = read_json(folder / name, "weight index")
            names = sorted(set(index.get("weight_map", {}).values()))
            if absent := [file for file in names if not (folder / file).is_file()]:
                more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
                raise InputError(
                    f"{folder / name} names {absent[0]}{more}, which is not there; fetch the checkpoint again"
                )
            return [folder / file for file in names]
    return [folder / name for name in SINGLE_FILES if (folder / name).is_file()][:1]


def tensor_keys(files: list[Path]) -> list[str]:
    """Return the names of all tensors in `files`; only headers are read."""
    return [key for file in files for key in _open(file).keys]


def iter_tensors(files: list[Path]) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield `(name, tensor)` of all `files` in order; tensors are mapped from disk, and one file is open at a time."""
    for file in files:
        opened = _open(file)
        for key in opened.keys:
            yield key, opened.tensor(key)


def read_tensors(file: Path) -> dict[str, torch.Tensor]:
    """Return all tensors of one (small) file."""
    opened = _open(file)
    return {key: opened.tensor(key) for key in opened.keys}


class _Safetensors:
    """One open .safetensors file."""

    def __init__(self, file: Path):
        from safetensors import safe_open

        self.handle = safe_open(file, framework="pt")
        self.keys = list(self.handle.keys())

    def tensor(self, key: str) -> torch.Tensor:
        """Read one tensor."""
        return self.handle.get_tensor(key)


class _TorchFile:
    """One open .bin file: mapped, never unpickled beyond tensors."""

    def __init__(self, file: Path):
        self.state = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        if not isinstance(self.state, dict) or not all(isinstance(v, torch.Tensor) for v in self.state.values()):
            raise InputError(f"{file} does not hold a dictionary of tensors; give a checkpoint's weight file")
        self.keys = list(self.state)

    def tensor(self, key: str) -> torch.Tensor:
        """Read one tensor."""
        return self.state[key]


def _open(file: Path) -> _Safetensors | _TorchFile:
    """Open a weight file, naming it when it is damaged or unsafe."""
    from safetensors import SafetensorError

    try:
        return _Safetensors(file) if file.suffix == ".safetensors" else _TorchFile(file)
    except FileNotFoundError:
        raise InputError(f"weight file {file} does not exist; check the path") from None
    except pickle.UnpicklingError:
        raise InputError(f"{file} holds more than tensors and is not opened; convert it to safetensors") from None
    except (SafetensorError, RuntimeError, EOFError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise InputError(f"weight file {file} is damaged or incomplete ({reason}); fetch it again") from None


class ShardWriter:
    """Writes tensors into `model-0000x-of-0000n.safetensors` files with an index, as transformers lays them out.

    Args:
        folder: Where the files go.
        source_bytes: Size of what is converted; shards are an eighth of it (64 MiB to 2 GiB), which bounds the memory
            that a shard in the making takes.
    """

    def __init__(self, folder: Path, source_bytes: int):
        self.folder = folder
        self.limit = min(2048 * MEBIBYTE, max(64 * MEBIBYTE, source_bytes // 8))
        self.pending: dict[str, torch.Tensor] = {}
        self.shards: list[list[str]] = []
        self.total = 0

    def add(self, key: str, tensor: torch.Tensor) -> None:
        """Take one tensor."""
        self.pending[key] = tensor.contiguous()
        if sum(value.nbytes for value in self.pending.values()) >= self.limit:
            self._flush()

    def close(self) -> None:
        """Write what is left, give the files their final names, and write the index."""
        self._flush()
        count = len(self.shards)
        weight_map = {}
        for number, keys in enumerate(self.shards, start=1):
            name = f"model-{number:05}-of-{count:05}.safetensors" if count > 1 else "model.safetensors"
            (self.folder / f"part-{number}").rename(self.folder / name)
            weight_map.update(dict.fromkeys(keys, name))
        if count > 1:
            index = {"metadata": {"total_size": self.total}, "weight_map": weight_map}
            write_json(self.folder / "model.safetensors.index.json", index)

    def _flush(self) -> None:
        from safetensors.torch import save_file

        if self.pending:
            self.shards.append(list(self.pending))
            self.total += sum(value.nbytes for value in self.pending.values())
            save_file(self.pending, self.folder / f"part-{len(self.shards)}", metadata={"format": "pt"})
            self.pending = {}
