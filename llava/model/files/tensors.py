"""A checkpoint's tensors, file by file: safetensors, or pickles of which nothing but tensors is read."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from llava.errors import InputError
from llava.fields import Fields
from llava.files import explain_reading, read_json

if TYPE_CHECKING:
    import torch

INDEX_FILES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
SINGLE_FILES = ("model.safetensors", "pytorch_model.bin")
MAPPED_BYTES = 1 << 26
"""Bytes of a file that may be read before it is closed and opened anew."""
REMEDY = "fetch the checkpoint again"


class TensorFileError(InputError):
    """Report a weight file that holds no plain tensors."""

    def __init__(self, message: str, reason: str):
        """Keep the message, and the reason alone for callers that know more of the file."""
        super().__init__(message)
        self.reason = reason


def weight_files(folder: Path) -> list[Path]:
    """Return the files that hold a checkpoint's weights; safetensors before .bin; empty when there are none.

    Raises:
        InputError: When an index is no index, or names a file that is not there.
    """
    for name in INDEX_FILES:
        if (folder / name).is_file():
            names = read_index(folder / name)
            if absent := [file for file in names if not (folder / file).is_file()]:
                more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
                raise InputError(f"{folder / name} names {absent[0]}{more}, which is not there; {REMEDY}")
            return [folder / file for file in names]
    return [folder / name for name in SINGLE_FILES if (folder / name).is_file()][:1]


def read_index(path: Path) -> list[str]:
    """Return the names of the files that a weight index names, each once and in order.

    Raises:
        InputError: When it is no index, names nothing, or names a place outside its folder.
    """
    weight_map = Fields(read_json(path, "weight index"), f"weight index {path}", REMEDY).inner("weight_map")
    names = sorted({weight_map.text(key) for key in weight_map.values})
    if not names:
        raise InputError(f"weight index {path} names no files; {REMEDY}")
    for name in names:
        # What a file says never becomes a path to somewhere else.
        if not name.endswith((".safetensors", ".bin")) or name.startswith(".") or set(name) & {"/", "\\", "\0"}:
            raise InputError(f"weight index {path} names {name!r}, which is no weight file's name; {REMEDY}")
        if len(name.encode()) > 255:
            raise InputError(f"weight index {path} names a file of {len(name)} letters; {REMEDY}")
    return names


def tensor_keys(files: list[Path]) -> list[str]:
    """Return the names of all tensors in `files`; only headers are read."""
    return [key for file in files for key in open_tensors(file).keys]


def iter_tensors(files: list[Path]) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield `(name, tensor)` of all `files` in order, mapped from disk; memory holds a part of one file at a time.

    A tensor that the caller keeps stays mapped.
    """
    for file in files:
        reader = TensorReader(file)
        for key in reader.keys:
            yield key, reader.tensor(key)


class TensorReader:
    """Reads tensors of one file, and lets go of what was read before.

    The pages of a mapped file that were looked at count as memory of the process until the file is closed, so it is
    opened anew every `MAPPED_BYTES`.
    """

    def __init__(self, file: Path):
        """Open a weight file, as `open_tensors` does."""
        self.file = file
        self.opened = open_tensors(file)
        self.keys = self.opened.keys
        self.read_bytes = 0

    def tensor(self, key: str) -> torch.Tensor:
        """Return one tensor, mapped from disk where the file can be mapped."""
        if self.read_bytes > MAPPED_BYTES:
            self.let_go()
        tensor = self.opened.tensor(key)
        self.read_bytes += tensor.nbytes
        return tensor

    def let_go(self) -> None:
        """Let go of the pages that were looked at; tensors that are still held keep theirs."""
        if self.read_bytes and self.opened.is_mapped:
            self.opened, self.read_bytes = open_tensors(self.file), 0


def write_tensors(file: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Write tensors into one safetensors file, so that another process sees the whole file or none."""
    from safetensors.torch import save_file

    temporary = file.with_name(f".{file.name}")
    save_file(tensors, temporary, metadata={"format": "pt"})
    temporary.chmod(0o644)  # safetensors keeps it from everyone but its owner
    temporary.replace(file)


def read_tensors(file: Path) -> dict[str, torch.Tensor]:
    """Return all tensors of one (small) file."""
    opened = open_tensors(file)
    return {key: opened.tensor(key) for key in opened.keys}


class SafetensorsFile:
    """One open .safetensors file."""

    is_mapped = True
    """Whether its tensors are pages of the file."""

    def __init__(self, file: Path):
        from safetensors import safe_open

        self.handle = safe_open(file, framework="pt")
        self.keys = list(self.handle.keys())

    def tensor(self, key: str) -> torch.Tensor:
        """Read one tensor."""
        return self.handle.get_tensor(key)

    def rows(self, key: str, start: int, stop: int) -> torch.Tensor:
        """Read some rows of a tensor: its first dimension from `start` to `stop`."""
        return self.handle.get_slice(key)[start:stop]

    def shape(self, key: str) -> tuple[int, ...]:
        """Return a tensor's shape, from the header."""
        return tuple(self.handle.get_slice(key).get_shape())

    def kind(self, key: str) -> str:
        """Return the name of a tensor's type ("F32", "I8"), from the header."""
        return str(self.handle.get_slice(key).get_dtype())

    def is_floating(self, key: str) -> bool:
        """Tell whether a tensor holds floating-point numbers, from the header."""
        return self.kind(key).startswith(("F", "BF"))


class TorchFile:
    """One open .bin file: mapped, never unpickled beyond tensors."""

    def __init__(self, file: Path):
        import torch

        # What torch wrote before version 1.6 is no archive and cannot be mapped.
        self.is_mapped = zipfile.is_zipfile(file)
        self.state = torch.load(file, map_location="cpu", weights_only=True, mmap=self.is_mapped)
        if not isinstance(self.state, dict) or not all(
            isinstance(key, str) and isinstance(value, torch.Tensor) and _is_plain(value)
            for key, value in self.state.items()
        ):
            reason = "does not hold a dictionary of tensors"
            raise TensorFileError(f"{file} {reason}; give a checkpoint's weight file", reason)
        self.keys = list(self.state)

    def tensor(self, key: str) -> torch.Tensor:
        """Read one tensor."""
        return self.state[key]

    def rows(self, key: str, start: int, stop: int) -> torch.Tensor:
        """Read some rows of a tensor: its first dimension from `start` to `stop`."""
        return self.state[key][start:stop]

    def shape(self, key: str) -> tuple[int, ...]:
        """Return a tensor's shape."""
        return tuple(self.state[key].shape)

    def kind(self, key: str) -> str:
        """Return the name of a tensor's type ("float32", "int8")."""
        return str(self.state[key].dtype).removeprefix("torch.")

    def is_floating(self, key: str) -> bool:
        """Tell whether a tensor holds floating-point numbers."""
        return bool(self.state[key].is_floating_point())


def _is_plain(tensor: torch.Tensor) -> bool:
    """Tell whether a tensor is dense and on the CPU, so that its values can be read."""
    import torch

    return tensor.layout is torch.strided and not tensor.is_quantized and tensor.device.type == "cpu"


def open_tensors(file: Path) -> SafetensorsFile | TorchFile:
    """Open a weight file; only its header is read, or mapped.

    Raises:
        InputError: When it is absent; the message names it.
        TensorFileError: When it is damaged or unsafe.
    """
    import pickle

    with explain_reading("weight file", file), file.open("rb"):
        pass
    try:
        return SafetensorsFile(file) if file.suffix == ".safetensors" else TorchFile(file)
    except (InputError, MemoryError):
        raise
    except pickle.UnpicklingError:
        reason = "holds more than tensors and is not opened"
        raise TensorFileError(f"{file} {reason}; convert it to safetensors", reason) from None
    except Exception as error:  # noqa: BLE001 - a damaged archive or pickle raises whatever its bytes lead to
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise TensorFileError(
            f"weight file {file} is damaged or incomplete ({reason}); fetch it again", reason
        ) from None
