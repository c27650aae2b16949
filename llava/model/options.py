"""How a checkpoint is loaded: the one list of options that every loader, command and setting shares."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava.bounds import flag
from llava.errors import InputError
from llava.model.devices import DTYPE_NAMES, pick_device, pick_dtype
from llava.model.quiet import quiet_bitsandbytes

if TYPE_CHECKING:
    import torch
    from typing_extensions import Self


@dataclass(frozen=True, kw_only=True)
class LoadOptions:
    """Where and in which numbers a checkpoint runs, and what it is put together from.

    Settings that load a model inherit from it, so that a new option is written once.

    Example:
        >>> LoadOptions(device="cpu", dtype="float32").pick_dtype().itemsize
        4
    """

    device: str | None = None
    """Torch device (`cpu`, `cuda:1`); None takes the accelerator where there is one."""
    dtype: str = "auto"
    """Floating-point type: `auto`, `float32`, `bfloat16` or `float16`."""
    attn_implementation: str | None = None
    """Attention kernel of transformers (`eager`, `sdpa`, `flash_attention_2`); None lets it choose."""
    load_in_8bit: bool = False
    """Quantise the weights to 8 bits by bitsandbytes."""
    load_in_4bit: bool = False
    """Quantise the weights to 4 bits by bitsandbytes."""
    trust_remote_code: bool = False
    """Run Python code that comes with the checkpoint; only for sources you trust."""
    base: str | None = None
    """Base model of an adapter, or of a LLaVA that is no whole model, instead of the one that it names."""
    vision_tower: str | None = None
    """CLIP tower of an original-format LLaVA whose recorded one is not reachable."""

    def __post_init__(self) -> None:
        """Refuse values of the wrong kind, and two that exclude each other."""
        for name in ("load_in_8bit", "load_in_4bit", "trust_remote_code"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"{flag(name)} {getattr(self, name)!r} must be true or false")
        for name in ("device", "attn_implementation", "base", "vision_tower"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                # A path or a torch.device is as good as its name, which is all that settings can store.
                object.__setattr__(self, name, str(value))
        if self.dtype not in DTYPE_NAMES:
            raise InputError(f"--dtype {self.dtype} is unknown; choose one of {', '.join(DTYPE_NAMES)}")
        if self.load_in_8bit and self.load_in_4bit:
            raise InputError("--load-in-8bit and --load-in-4bit exclude each other; give one of them")

    @property
    def is_quantised(self) -> bool:
        """Whether the weights are held in fewer bits than they are computed in."""
        return self.load_in_8bit or self.load_in_4bit

    @property
    def load_options(self) -> LoadOptions:
        """These options alone, without what a class that inherits them adds."""
        return LoadOptions(**{field.name: getattr(self, field.name) for field in fields(LoadOptions)})

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form, with all that a class that inherits these options adds."""
        return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Rebuild options or settings from their JSON form or from a configuration file.

        Raises:
            InputError: When a key is unknown.
        """
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown:
            raise InputError(f"setting '{unknown[0]}' is unknown; see --help for the names")
        return cls(**values)

    def pick_device(self) -> torch.device:
        """Return the device to run on; raises `InputError` when it is not there."""
        return pick_device(self.device)

    def pick_dtype(self) -> torch.dtype:
        """Return the floating-point type to compute in."""
        return pick_dtype(self.pick_device(), self.dtype)

    def build_arguments(self, kept_whole: Sequence[str] | None = None) -> dict[str, Any]:
        """Return the arguments of transformers' `from_pretrained`.

        Quantised weights, and those for an accelerator, go where they belong as they are read; others are read into the
        host's memory, and the caller moves them (see `place`).

        Args:
            kept_whole: Names of modules that quantisation leaves alone; None lets transformers choose.

        Raises:
            InputError: When the device is not there, or bitsandbytes is missing.
        """
        device = self.pick_device()
        arguments: dict[str, Any] = {"dtype": self.pick_dtype(), "trust_remote_code": self.trust_remote_code}
        if self.attn_implementation is not None:
            arguments["attn_implementation"] = self.attn_implementation
        if self.is_quantised:
            arguments["quantization_config"] = self._build_quantisation(kept_whole)
        if self.is_quantised or device.type != "cpu":
            arguments["device_map"] = {"": device}
        return arguments

    def place(self, model: Any) -> Any:
        """Return `model` on the device, fit for several threads; quantised weights are there and are not moved."""
        if not self.is_quantised:
            return model.to(self.pick_device())
        settle_weights(model, self.pick_dtype())
        return model

    def _build_quantisation(self, kept_whole: Sequence[str] | None) -> Any:
        """Return the config for bitsandbytes."""
        from transformers import BitsAndBytesConfig

        if importlib.util.find_spec("bitsandbytes") is None:
            name = "load_in_8bit" if self.load_in_8bit else "load_in_4bit"
            raise InputError(f"{flag(name)} needs bitsandbytes, which is not installed; pip install bitsandbytes")
        skipped = list(kept_whole) if kept_whole is not None else None
        if self.load_in_8bit:
            return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skipped)
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_compute_dtype=self.pick_dtype(),
            bnb_4bit_quant_type="nf4",
            llm_int8_skip_modules=skipped,
        )


def settle_weights(model: torch.nn.Module, dtype: torch.dtype) -> None:
    """Let bitsandbytes bring quantised weights into their final layout, before several threads use them.

    It does so in the first forward pass of each layer and without a lock: two passes at once would do it twice, and
    leave weights that mean something else.

    Args:
        model: Holds layers of bitsandbytes; others are not run, nor those that it cannot lay out on every device.
        dtype: What the layers will be given.
    """
    import torch

    with torch.no_grad(), quiet_bitsandbytes():
        for layer in model.modules():
            if not isinstance(layer, torch.nn.Linear) or layer.weight.is_floating_point():
                continue
            if layer.in_features % 64 == 0 and layer.out_features % 32 == 0:
                layer(torch.zeros(1, layer.in_features, dtype=dtype, device=layer.weight.device))


LOAD_OPTIONS = tuple(field.name for field in fields(LoadOptions))
"""Names of all options."""


def collect_options(options: LoadOptions | None, keywords: Mapping[str, Any]) -> LoadOptions:
    """Return the options that a loader was given as an object, as keywords, or as both; keywords win.

    Raises:
        TypeError: When a keyword is no option.

    Example:
        >>> collect_options(LoadOptions(dtype="float32"), {"device": "cpu"}).device
        'cpu'
    """
    unknown = sorted(set(keywords) - set(LOAD_OPTIONS))
    if unknown:
        raise TypeError(f"unexpected keyword argument '{unknown[0]}'; options are {', '.join(LOAD_OPTIONS)}")
    return replace((options or LoadOptions()).load_options, **keywords)


def take_options(values: Mapping[str, Any]) -> LoadOptions:
    """Return the options among the named values of a command; the others are left alone.

    Example:
        >>> take_options({"output": "x", "dtype": "float16"}).dtype
        'float16'
    """
    return LoadOptions(**{name: values[name] for name in LOAD_OPTIONS if name in values})
