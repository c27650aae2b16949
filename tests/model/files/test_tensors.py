"""Reading weights file by file."""

from __future__ import annotations

import json
import pickle

import pytest
import torch
from safetensors.torch import save_file

from llava.errors import InputError
from llava.model.files.tensors import iter_tensors, open_tensors, read_tensors, tensor_keys, weight_files, write_tensors

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


@pytest.mark.parametrize(
    "index",
    [
        [],
        "x",
        {"metadata": {}},
        {"weight_map": []},
        {"weight_map": {}},
        {"weight_map": {"a": 5}},
        {"weight_map": {"a": "../other/model.safetensors"}},
        {"weight_map": {"a": "/etc/passwd"}},
        {"weight_map": {"a": "x" * 300 + ".bin"}},
        {"weight_map": {"a": "config.json"}},
    ],
    ids=str,
)
def test_an_index_that_is_none_is_named(tmp_path, index):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=r"weight index .*model\.safetensors\.index\.json") as caught:
        weight_files(tmp_path)
    assert "\n" not in str(caught.value)


def test_headers_say_shape_and_kind_in_both_formats(tmp_path):
    weights = {"half": torch.ones(2, 3, dtype=torch.bfloat16), "whole": torch.ones(4, dtype=torch.int8)}
    torch.save(weights, tmp_path / "x.bin")
    save_file(weights, tmp_path / "x.safetensors")
    for name in ("x.bin", "x.safetensors"):
        opened = open_tensors(tmp_path / name)
        assert (opened.shape("half"), opened.shape("whole")) == ((2, 3), (4,))
        assert (opened.is_floating("half"), opened.is_floating("whole")) == (True, False)


@pytest.mark.parametrize(
    "state",
    [{1: torch.ones(1)}, {"a": 1}, torch.ones(1), {"a": torch.ones(2, 2).to_sparse()}],
    ids=["key", "number", "tensor", "sparse"],
)
def test_a_bin_file_of_other_things_is_refused(tmp_path, state):
    torch.save(state, tmp_path / "x.bin")
    with pytest.raises(InputError, match="dictionary of tensors"):
        open_tensors(tmp_path / "x.bin")


def test_corrupt_pickles_are_one_line(tmp_path):
    """Bytes that lead the reader to a text that is no UTF-8, and to a memo that is not there."""
    for content in (b"\x80\x02X\x02\x00\x00\x00\xff\xfeq\x00.", b"\x80\x02h\x07.", pickle.dumps({"a": 1})[:5], b""):
        (tmp_path / "x.bin").write_bytes(content)
        with pytest.raises(InputError, match=r"x\.bin") as caught:
            open_tensors(tmp_path / "x.bin")
        assert "\n" not in str(caught.value)


def test_files_from_before_the_archive_format_are_read(tmp_path):
    torch.save(WEIGHTS, tmp_path / "x.bin", _use_new_zipfile_serialization=False)
    assert all(torch.equal(value, WEIGHTS[key]) for key, value in read_tensors(tmp_path / "x.bin").items())


def test_written_tensors_are_read_by_everybody_and_leave_no_other_file(tmp_path):
    for value in (1.0, 2.0):
        write_tensors(tmp_path / "model.safetensors", {"a": torch.full((2,), value)})
        assert read_tensors(tmp_path / "model.safetensors")["a"].tolist() == [value, value]
    assert (tmp_path / "model.safetensors").stat().st_mode & 0o777 == 0o644
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
