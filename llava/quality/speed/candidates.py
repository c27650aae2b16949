"""The ways in which a detector can be loaded on a device, each with the flags that say so."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llava.model.options import LoadOptions

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Candidate:
    """One way to load a detector."""

    name: str
    """How a table calls it."""
    options: LoadOptions
    """How it is loaded."""
    flags: tuple[str, ...]
    """What is typed for it."""


def list_candidates(device: torch.device) -> list[Candidate]:
    """Return the ways to try on a device; the first is single precision, which the others are held against.

    Those that need a package which is not installed are left out.

    Example:
        >>> import torch
        >>> [candidate.name for candidate in list_candidates(torch.device("cpu"))][:3]
        ['float32', 'float32, eager attention', 'bfloat16']
    """
    plain, eager = LoadOptions(device=str(device), dtype="float32"), ("--attn-implementation", "eager")
    found = [
        Candidate("float32", plain, ("--dtype", "float32")),
        _build(device, "float32, eager attention", ("--dtype", "float32", *eager), attn_implementation="eager"),
        _build(device, "bfloat16", ("--dtype", "bfloat16"), dtype="bfloat16"),
    ]
    if device.type != "cpu":
        found.append(_build(device, "float16", ("--dtype", "float16"), dtype="float16"))
        if importlib.util.find_spec("flash_attn") is not None:
            flash = "flash_attention_2"
            flags = ("--dtype", "bfloat16", "--attn-implementation", flash)
            found.append(
                _build(device, "bfloat16, flash attention", flags, dtype="bfloat16", attn_implementation=flash)
            )
    if importlib.util.find_spec("bitsandbytes") is not None:
        found.append(_build(device, "8-bit weights", ("--load-in-8bit",), dtype="auto", load_in_8bit=True))
        found.append(_build(device, "4-bit weights", ("--load-in-4bit",), dtype="auto", load_in_4bit=True))
    return found


def _build(
    device: torch.device,
    name: str,
    flags: tuple[str, ...],
    dtype: str = "float32",
    attn_implementation: str | None = None,
    load_in_8bit: bool = False,
    load_in_4bit: bool = False,
) -> Candidate:
    """Make a candidate from what differs."""
    options = LoadOptions(
        device=str(device),
        dtype=dtype,
        attn_implementation=attn_implementation,
        load_in_8bit=load_in_8bit,
        load_in_4bit=load_in_4bit,
    )
    return Candidate(name, options, flags)
