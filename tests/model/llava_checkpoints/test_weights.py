"""Writing weights shard by shard."""

from __future__ import annotations

import json

import torch
from safetensors.torch import load_file

from llava.model.files.tensors import iter_tensors, weight_files
from llava.model.llava_checkpoints.weights import ShardWriter

WEIGHTS = {f"layer.{i}": torch.arange(6.0).reshape(2, 3) + i for i in range(5)}


def test_the_writer_makes_shards_and_an_index(tmp_path):
    writer = ShardWriter(tmp_path, source_bytes=0)
    writer.limit = 50
    for key, value in WEIGHTS.items():
        writer.add(key, value)
    writer.close()
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    ]
    assert json.loads((tmp_path / "model.safetensors.index.json").read_text())["metadata"]["total_size"] == 120
    read = dict(iter_tensors(weight_files(tmp_path)))
    assert all(torch.equal(read[key], value) for key, value in WEIGHTS.items())


def test_one_shard_needs_no_index(tmp_path):
    writer = ShardWriter(tmp_path, source_bytes=0)
    # A transposed view is not contiguous, a slice shares a bigger storage.
    writer.add("t", WEIGHTS["layer.0"].T)
    writer.close()
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]
    assert torch.equal(load_file(tmp_path / "model.safetensors")["t"], WEIGHTS["layer.0"].T)
