"""Running a network whose weights stay on disk: each layer's are read when it runs, and let go when it has run.

A checkpoint of any size is computed with in the memory of its largest layer, in single precision: the rounding of half
precision would hide what a comparison looks for.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from llava.errors import InputError
from llava.model.files.tensors import MAPPED_BYTES, TensorReader

SLICE = 8192
"""Rows of a matrix that are widened together."""

Read = Callable[[str], torch.Tensor]
"""Returns the weight of a name, as it is on disk."""
Buffers = dict[tuple[str, torch.Size], torch.Tensor]
"""Memory for widened weights, by a parameter's own name and shape."""


class WeightFiles:
    """The weights of some files by name."""

    def __init__(self, files: list[Path], rename: Callable[[str], str] = str):
        """Note where each weight is.

        Args:
            files: Weight files.
            rename: Returns what a weight is asked for by, from its name in the file.
        """
        self.readers = [TensorReader(file) for file in files]
        self.places = {rename(key): (reader, key) for reader in self.readers for key in reader.keys}

    def __contains__(self, name: str) -> bool:
        return name in self.places

    def read(self, name: str) -> torch.Tensor:
        """Return a weight, mapped from disk.

        Raises:
            InputError: When the files have none of that name.
        """
        if name not in self.places:
            where = self.readers[0].file.parent if self.readers else "the checkpoint"
            raise InputError(f"{where} lacks the weight {name}; it is incomplete, fetch it again")
        # Of many small files none alone is read so much that it would be opened anew.
        if sum(reader.read_bytes for reader in self.readers) > MAPPED_BYTES:
            for reader in self.readers:
                reader.let_go()
        reader, key = self.places[name]
        return reader.tensor(key)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a weight's shape."""
        reader, key = self.places[name]
        return reader.opened.shape(key)


def build_empty(build: Callable[[], Any]) -> Any:
    """Return a network without weights, in single precision; its buffers are there.

    Args:
        build: Makes the network.
    """
    from accelerate import init_empty_weights

    with init_empty_weights():
        network = build()
    return network.float().eval()


def stream_weights(network: nn.Module, read: Read) -> None:
    """Let an empty network run: each layer reads its weights when it runs, widened to float32, and lets them go after.

    The two matrices of the vocabulary are never widened whole: of the embeddings only the rows that are looked up, of
    the output layer a slice at a time.

    Args:
        network: What `build_empty` returned.
        read: Returns a parameter's weight by the parameter's name.
    """
    # Modules without parts run one at a time and can share: thousands of short-lived matrices would leave the
    # allocator's heap in pieces.
    shared: Buffers = {}
    for name, module in network.named_modules():
        place = f"{name}." if name else ""
        if type(module) is nn.Embedding:
            module.forward = functools.partial(_look_up, module, read, place)  # type: ignore[method-assign]
        elif type(module) is nn.Linear and module.out_features > SLICE:
            module.forward = functools.partial(_multiply, module, read, place)  # type: ignore[method-assign]
        elif module._parameters:
            empty = dict(module._parameters)
            buffers = shared if next(module.children(), None) is None else {}
            fill = functools.partial(_fill, read=read, place=place, empty=empty, buffers=buffers)
            module.register_forward_pre_hook(fill)
            module.register_forward_hook(functools.partial(_let_go, empty=empty))


def _fill(module: nn.Module, inputs: Any, *, read: Read, place: str, empty: dict[str, Any], buffers: Buffers) -> None:
    """Read a module's own weights before it runs."""
    for name, parameter in empty.items():
        if parameter is not None:
            weight = _check_shape(read(place + name), parameter.shape, place + name)
            if (name, weight.shape) not in buffers:
                with torch.inference_mode(False):  # or it could only be written to in that mode
                    buffers[name, weight.shape] = torch.empty(weight.shape, dtype=torch.float32)
            copy = buffers[name, weight.shape].copy_(weight)
            module._parameters[name] = nn.Parameter(copy, requires_grad=False)


def _let_go(module: nn.Module, inputs: Any, output: Any, *, empty: dict[str, Any]) -> None:
    """Let a module's own weights go after it has run."""
    module._parameters.update(empty)


def _look_up(module: nn.Embedding, read: Read, place: str, ids: torch.Tensor) -> torch.Tensor:
    """Return the rows of an embedding in float32."""
    return _check_shape(read(f"{place}weight"), module.weight.shape, f"{place}weight")[ids].float()


def _multiply(module: nn.Linear, read: Read, place: str, inputs: torch.Tensor) -> torch.Tensor:
    """Return what a wide layer makes of float32 inputs (..., D)."""
    weight = _check_shape(read(f"{place}weight"), module.weight.shape, f"{place}weight")
    bias = None if module.bias is None else read(f"{place}bias")
    return multiply_sliced(weight, bias, inputs)


def multiply_sliced(weight: torch.Tensor, bias: torch.Tensor | None, inputs: torch.Tensor) -> torch.Tensor:
    """Return inputs (..., D) times weights (O, D) plus bias in float32, the weights widened a slice at a time."""
    outputs = torch.cat([functional.linear(inputs, rows.float()) for rows in weight.split(SLICE)], dim=-1)
    return outputs if bias is None else outputs + bias.float()


def _check_shape(weight: torch.Tensor, shape: torch.Size, name: str) -> torch.Tensor:
    """Return a weight that has the shape its layer needs."""
    if weight.shape != shape:
        raise InputError(
            f"weight {name} is {tuple(weight.shape)} on disk, {tuple(shape)} by config.json; fetch the checkpoint again"
        )
    return weight
