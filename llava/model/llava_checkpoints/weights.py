"""Writing a checkpoint's tensors shard by shard, so that memory holds one shard, not the model."""

from __future__ import annotations

from pathlib import Path

import torch

from llava.files import write_json

MEBIBYTE = 1 << 20


class ShardWriter:
    """Writes tensors into `model-0000x-of-0000n.safetensors` files with an index, as transformers lays them out.

    Args:
        folder: Where the files go.
        source_bytes: Size of what is converted; shards are a sixteenth of it (64 MiB to 2 GiB), which bounds the
            memory that a shard in the making takes: twice its size, as its bytes are copied when it is written.
    """

    def __init__(self, folder: Path, source_bytes: int):
        self.folder = folder
        self.limit = min(2048 * MEBIBYTE, max(64 * MEBIBYTE, source_bytes // 16))
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
