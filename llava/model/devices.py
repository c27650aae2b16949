"""Choice of device and dtype: detected from the machine, overridden by name."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from llava.errors import InputError, first_line

if TYPE_CHECKING:
    import torch

DTYPE_NAMES = ("auto", "float32", "bfloat16", "float16")


def pick_device(name: str | None = None) -> torch.device:
    """Return the device to run on.

    Args:
        name: A torch device string (`cpu`, `cuda:1`, `mps`, `xpu`); None or `auto` takes the accelerator of this
            process (by `LOCAL_RANK`) where there is one, else the CPU.

    Raises:
        InputError: When the name is unknown or the device is not there.
    """
    import torch

    if name in (None, "auto"):
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        if accelerator is None:
            return torch.device("cpu")
        index = int(os.environ.get("LOCAL_RANK", "0")) % max(1, torch.accelerator.device_count())
        return torch.device(accelerator.type, index)
    try:
        device = torch.device(str(name))
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = first_line(error)
        raise InputError(f"device '{name}' cannot be used ({reason}); try --device cpu") from None
    return device


def pick_dtype(device: torch.device, name: str = "auto") -> torch.dtype:
    """Return the floating-point type to compute in.

    `auto` is bfloat16 where an accelerator supports it, float16 on other accelerators, and float32 on a CPU, where
    half precision is slower and rounds differently from batch to batch.

    Raises:
        InputError: When the name is not one of `DTYPE_NAMES`.
    """
    import torch

    if name not in DTYPE_NAMES:
        raise InputError(f"dtype '{name}' is unknown; choose one of {', '.join(DTYPE_NAMES)}")
    if name != "auto":
        return getattr(torch, name)
    if device.type == "cpu":
        return torch.float32
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.float16 if device.type == "mps" else torch.bfloat16
