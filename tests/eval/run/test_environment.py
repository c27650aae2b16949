"""What a run takes from the machine."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from llava.eval.run.environment import (
    MAX_AUTO_BATCH_SIZE,
    choose_batch_size,
    count_cores,
    count_processes,
    count_sharers,
    describe_device,
    describe_versions,
    fix_rounding,
    measure_host_memory,
    measure_weights,
    name_device,
)
from llava.eval.run.settings import GenerationSettings

GIB = 1 << 30


def test_versions_name_what_a_repetition_needs():
    versions = describe_versions()
    assert versions["torch"] == torch.__version__
    assert {"mllm-protector", "python", "transformers", "peft"} <= set(versions)


def test_processes_and_devices_follow_the_machine():
    assert count_processes(GenerationSettings("m", "o", num_processes=3)) == 3
    assert count_processes(GenerationSettings("m", "o", device="cpu")) == 1
    assert count_processes(GenerationSettings("m", "o", device="cuda:1")) == 1
    assert count_processes(GenerationSettings("m", "o")) == max(1, torch.accelerator.device_count())
    assert name_device(GenerationSettings("m", "o", device="cpu"), 1) == "cpu"
    assert name_device(GenerationSettings("m", "o"), 1) is None
    assert name_device(GenerationSettings("m", "o", device="cuda:1"), 0) == "cuda:1"
    expected = f"cuda:{1 % max(1, torch.accelerator.device_count())}"
    assert name_device(GenerationSettings("m", "o", device="cuda"), 1) == expected
    assert describe_device(torch.device("cpu")).startswith("cpu (")
    assert 1 <= count_cores() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(
    ("memory", "weights", "rows"), [(80, 14, 32), (24, 14, 8), (16, 14, 2), (16, 16, 1), (8, 14, 1), (11, 2, 32)]
)
def test_auto_batch_size_follows_the_memory_that_weights_leave(monkeypatch, memory, weights, rows):
    properties = SimpleNamespace(total_memory=memory * GIB)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    assert choose_batch_size(torch.device("cuda", 0), weights * GIB) == rows
    assert rows <= MAX_AUTO_BATCH_SIZE


@pytest.mark.parametrize(
    ("memory", "weights", "rows"), [(24, 0.5, 32), (4, 0.5, 16), (2, 0.5, 8), (64, 14, 16), (32, 14, 2)]
)
def test_on_a_cpu_half_of_the_memory_counts(monkeypatch, memory, weights, rows):
    monkeypatch.setattr("llava.eval.run.environment.measure_host_memory", lambda: memory * GIB)
    assert choose_batch_size(torch.device("cpu"), int(weights * GIB)) == rows


@pytest.mark.parametrize(("sharers", "rows"), [(1, 32), (2, 16), (3, 8), (4, 4), (6, 1)])
def test_processes_on_one_device_share_its_memory(monkeypatch, sharers, rows):
    properties = SimpleNamespace(total_memory=80 * GIB)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    assert choose_batch_size(torch.device("cuda", 0), 14 * GIB, sharers) == rows


def test_processes_share_the_cpu_and_a_device_that_is_named_by_its_index(monkeypatch):
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 4)
    cpu, cuda = torch.device("cpu"), torch.device("cuda", 1)
    assert count_sharers(GenerationSettings("m", "o"), cpu) == 1
    assert count_sharers(GenerationSettings("m", "o", num_processes=3), cpu) == 3
    assert count_sharers(GenerationSettings("m", "o", num_processes=4), cuda) == 1
    assert count_sharers(GenerationSettings("m", "o", num_processes=5), cuda) == 2
    assert count_sharers(GenerationSettings("m", "o", num_processes=3, device="cuda:1"), cuda) == 3
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert count_sharers(GenerationSettings("m", "o", num_processes=16), cuda) == 2


def test_weights_are_counted_once_in_either_format(tmp_path):
    def write(name, size):
        (tmp_path / name).write_bytes(bytes(size))

    assert measure_weights(tmp_path) == 0
    write("pytorch_model-00001-of-00002.bin", 300)
    write("pytorch_model-00002-of-00002.bin", 200)
    write("training_args.bin", 7)
    write("config.json", 5)
    assert measure_weights(tmp_path) == 500
    write("model.safetensors", 490)
    assert measure_weights(tmp_path) == 490


def test_the_memory_of_this_machine_is_known():
    assert GIB // 4 < measure_host_memory() < 1 << 50


def test_the_users_own_rounding_is_left_alone(monkeypatch):
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    assert fix_rounding()
    assert os.environ["MKL_CBWR"] == "COMPATIBLE"


def test_rounding_cannot_be_fixed_where_torch_was_in_use(monkeypatch):
    monkeypatch.delenv("MKL_CBWR", raising=False)
    assert not fix_rounding()
    assert "MKL_CBWR" not in os.environ


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="this torch has no MKL")
def test_a_product_rounds_the_same_for_every_number_of_threads():
    code = (
        "from llava.eval.run.environment import fix_rounding\n"
        "assert fix_rounding()\n"
        "import torch\n"
        "torch.manual_seed(0)\n"
        "for rows, columns, width in ((64, 4096, 256), (300, 1024, 64), (64, 11008, 128)):\n"
        "    x, w = torch.randn(rows, columns), torch.randn(width, columns)\n"
        "    products = []\n"
        "    for threads in (1, 2, 3, 4):\n"
        "        torch.set_num_threads(threads)\n"
        "        products.append(torch.nn.functional.linear(x, w))\n"
        "    assert all(torch.equal(products[0], product) for product in products)\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "MKL_CBWR"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=120)
