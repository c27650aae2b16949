"""The machine that figures were measured on, for whoever reads them elsewhere."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")
INSTRUCTION_SETS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "neon", "sve")
"""Those that matrix products are faster with, weakest first."""


@dataclass(frozen=True)
class Machine:
    """What decides how fast a model runs."""

    cpu: str
    """Model of the CPU."""
    cores: int
    """Cores that this process may use."""
    instruction_sets: tuple[str, ...]
    """Of `INSTRUCTION_SETS` those that the CPU has."""
    threads: int
    """Threads that torch computes with."""
    torch: str
    """Version of torch, with its build."""
    device: str
    """Where models run unless a benchmark is told otherwise."""

    def __str__(self) -> str:
        """Return all of it in one line."""
        sets = ", ".join(self.instruction_sets) or "no wide instructions known"
        return (
            f"{self.cpu}, {self.cores} cores ({sets}), {self.threads} threads, torch {self.torch}, device {self.device}"
        )


def describe_machine() -> Machine:
    """Look at this machine."""
    import torch

    from llava.eval.run.environment import count_cores, describe_device
    from llava.model.devices import pick_device

    info = CPU_INFO.read_text(encoding="utf-8") if CPU_INFO.is_file() else ""
    model, sets = read_cpu(info)
    device = pick_device()
    return Machine(
        cpu=model or platform.processor() or platform.machine(),
        cores=count_cores(),
        instruction_sets=sets,
        threads=torch.get_num_threads(),
        torch=str(torch.__version__),
        device="cpu" if device.type == "cpu" else describe_device(device),
    )


def read_cpu(info: str) -> tuple[str | None, tuple[str, ...]]:
    """Return the model of a CPU and its instruction sets from what Linux says of the first core.

    Example:
        >>> read_cpu("model name\\t: AMD EPYC\\nflags\\t\\t: fpu avx avx2 vaes\\n")
        ('AMD EPYC', ('avx2',))
        >>> read_cpu("")
        (None, ())
    """
    fields: dict[str, str] = {}
    for line in info.partition("\n\n")[0].splitlines():
        name, _, value = line.partition(":")
        fields[name.strip()] = value.strip()
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    if "asimd" in flags:  # what Linux calls it on 64-bit ARM
        flags.add("neon")
    return fields.get("model name"), tuple(each for each in INSTRUCTION_SETS if each in flags)
