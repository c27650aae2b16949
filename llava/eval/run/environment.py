"""The machine and the libraries of a run: what it ran on, and how its CPU work is kept reproducible."""

from __future__ import annotations

import math
import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from llava import __version__
from llava.eval.run.settings import GenerationSettings
from llava.model.options import LoadOptions

if TYPE_CHECKING:
    import torch

LIBRARIES = ("torch", "transformers", "peft", "accelerate", "tokenizers", "numpy")
TRAINING_ARGUMENTS = "training_args.bin"
ROUNDING_VARIABLE = "MKL_CBWR"
ROUNDING = "AUTO,STRICT"
ENDPOINT_BATCH_SIZE = 32
"""Questions that a process claims together; how many are asked at a time is `concurrency`."""
MAX_AUTO_BATCH_SIZE = 32
"""Most rows that `auto` takes: a batch is what a kill costs."""
ROW_SHARE = 14
"""Memory that `auto` plans for a row is this part of the weights: 1 GiB for the cache and activations of a 7B model in
half precision, with a picture and a long answer."""
LEAST_BYTES_PER_ROW = 1 << 26


def describe_versions() -> dict[str, str]:
    """Return the versions that someone needs who wants to repeat the run."""
    import torch

    versions = {"mllm-protector": __version__, "python": platform.python_version()}
    for name in LIBRARIES:
        versions[name] = metadata.version(name)
    # What pip recorded may lack the build: CUDA, ROCm or CPU.
    versions["torch"] = str(torch.__version__)
    return versions


def describe_device(device: torch.device) -> str:
    """Return the name of the device as people know it."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({platform.processor() or platform.machine()})"


def count_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def fix_rounding() -> bool:
    """Ask MKL to round the same way for every number of threads.

    Without it a matrix product may add its terms in another order when the number of threads changes (measured: last
    bits differ from 64 rows and 1,024 columns on), and so would the records of one process and of two. Products of 1 to
    3 rows take twice the time then, those of 8 and more the same. The user's own setting is left alone.

    Returns:
        True when the setting holds in this process. MKL reads it at its first product, so it comes too late where torch
        was in use before; only a new process can round that way then.
    """
    if ROUNDING_VARIABLE not in os.environ:
        if "torch" in sys.modules:
            return False
        os.environ[ROUNDING_VARIABLE] = ROUNDING
    return True


def count_processes(settings: GenerationSettings) -> int:
    """Return how many processes share a run: as asked, else one for each accelerator that runs the model, else one."""
    if settings.num_processes is not None:
        return settings.num_processes
    return 1 if settings.endpoint is not None else count_accelerators(settings.device)


def count_accelerators(device: str | None) -> int:
    """Return how many accelerators a device's name stands for, at least 1: all of them unless one is named."""
    import torch

    name = device or "auto"
    if name.startswith("cpu") or ":" in name or not torch.accelerator.is_available():
        return 1
    return max(1, torch.accelerator.device_count())


def name_device(settings: LoadOptions, local_rank: int) -> str | None:
    """Return the device of one process: processes spread over accelerators unless the user named one by its index."""
    import torch

    if settings.device in (None, "auto", "cpu") or ":" in str(settings.device):
        return settings.device
    return f"{settings.device}:{local_rank % max(1, torch.accelerator.device_count())}"


def count_sharers(settings: GenerationSettings, device: torch.device) -> int:
    """Return how many of this machine's processes share one device of a run: all of them, on a CPU."""
    import torch

    # Under torchrun over several machines only the processes of this one count.
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", settings.num_processes or 1))
    if device.type == "cpu" or ":" in str(settings.device):
        return processes
    return math.ceil(processes / max(1, torch.accelerator.device_count()))


def measure_weights(folder: Path) -> int:
    """Return the size of the weights in a checkpoint's folder, in bytes: the safetensors, or else the `.bin` files."""
    sizes = [path.stat().st_size for path in folder.glob("*.safetensors")]
    if not sizes:
        sizes = [path.stat().st_size for path in folder.glob("*.bin") if path.name != TRAINING_ARGUMENTS]
    return sum(sizes)


def choose_batch_size(device: torch.device, model_bytes: int, sharers: int = 1) -> int:
    """Return what `--batch-size auto` stands for on this device.

    A power of two, so that small differences in free memory do not change it. Too large a choice is no failure: a batch
    that does not fit is cut in halves. The host's memory is shared with everything else, so half of it counts.

    Args:
        device: Where the model will run.
        model_bytes: Size of its weight files, in bytes.
        sharers: Processes that load the model on this device, each with its own weights.
    """
    import torch

    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory
    else:
        memory = measure_host_memory() // 2
    memory //= sharers
    bytes_per_row = max(LEAST_BYTES_PER_ROW, model_bytes // ROW_SHARE)
    rows = max(1, min(MAX_AUTO_BATCH_SIZE, (memory - model_bytes) // bytes_per_row))
    return 1 << (int(rows).bit_length() - 1)


def measure_host_memory() -> int:
    """Return the memory of this machine, in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
