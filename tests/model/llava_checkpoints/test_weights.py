"""Reading and writing weights shard by shard."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from llava.errors import InputError
from llava.model.llava_checkpoints.weights import ShardWriter
from llava.model.tensor_files import iter_tensors, read_tensors, tensor_keys, weight_files

WEIGHTS = {f"layer.{i}": torch.arange(6.0).reshape(2, 3) + i for i in range(5)}


def write(folder, suffix, count):
    from tests.model.original_checkpoints import write_shards

    write_shards(folder, WEIGHTS, suffix, count)


@pytest.mark.parametrize("suffix", [".bin", ".safetensors"])
@pytest.mark.parametrize("count", [1, 2])
def test_every_layout_is_read(tmp_path, suffix, count):
    write(tmp_path, suffix, count)
    files = weight_files(tmp_path)
    assert len(files) == count
    assert sorted(tensor_keys(files)) == sorted(WEIGHTS)
    read = dict(iter_tensors(files))
    assert all(torch.equal(read[key], value) for key, value in WEIGHTS.items())


def test_safetensors_win_over_bin(tmp_path):
    write(tmp_path, ".bin", 1)
    write(tmp_path, ".safetensors", 1)
    assert [file.name for file in weight_files(tmp_path)] == ["model.safetensors"]
    assert weight_files(tmp_path / "nothing") == []


def test_a_missing_shard_is_named(tmp_path):
    write(tmp_path, ".bin", 2)
    (tmp_path / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(InputError, match=r"pytorch_model-00002-of-00002\.bin, which is not there"):
        weight_files(tmp_path)


@pytest.mark.parametrize("suffix", [".bin", ".safetensors"])
def test_a_truncated_file_is_named(tmp_path, suffix):
    write(tmp_path, suffix, 1)
    [file] = weight_files(tmp_path)
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(InputError, match="damaged or incomplete"):
        tensor_keys([file])


def test_a_bin_file_with_code_is_not_opened(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "touched"), "w"))

    torch.save({"weight": Evil()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match="holds more than tensors"):
        read_tensors(tmp_path / "pytorch_model.bin")
    assert not (tmp_path / "touched").exists()
    torch.save([torch.ones(1)], tmp_path / "list.bin")
    with pytest.raises(InputError, match="dictionary of tensors"):
        read_tensors(tmp_path / "list.bin")


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
