"""A private view of a shared model: the same weights, with state of its own.

A model that several requests use at once must not be changed by any of them. Yet decoding wants its own defaults, the
output layer its rows packed, and some networks keep something between two steps in their modules (the offsets of
M-RoPE, the frequencies of dynamic RoPE). So each call works on a view.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import nn
from torch.nn import functional


class PackedLinear(nn.Linear):
    """A linear layer that reads its rows from packed memory.

    After the prompt the output layer gets the last position of each row, a tensor with gaps. Torch multiplies such a
    tensor row by row, each with a copy of the weights: measured on a CPU for a vocabulary of 49,152 and 18 rows, 2.9 s
    in bfloat16 (8 ms when packed) and 94 ms in float32 (18 ms).
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return `input` (…, in) times the weights, (…, out)."""
        return functional.linear(input.contiguous(), self.weight, self.bias)


class LowRankLinear(nn.Module):
    """A linear layer with a LoRA update (arXiv 2106.09685) beside it: x W.T + x A.T (scaling B).T.

    PEFT's own layer writes two more arrays as wide as the output, for the product and for its scaling, and the sum into
    a third; here the second product is added where the first lies.
    """

    def __init__(self, base_layer: Any, down: torch.Tensor, up: torch.Tensor, scale: float):
        """Put an update beside a layer.

        Args:
            base_layer: The layer, whole or quantised.
            down: A, (R, in).
            up: B, (out, R).
            scale: What their product is multiplied by.
        """
        super().__init__()
        self.base_layer = base_layer
        weight = base_layer.weight
        # Of a half-precision layer too: a factor in single precision would be more exact than what it is added to.
        place: dict[str, Any] = {"device": weight.device, "dtype": weight.dtype if weight.is_floating_point() else None}
        self.down = nn.Parameter(down.detach().to(**place), requires_grad=False)  # (R, in)
        self.up = nn.Parameter((up.detach() * scale).T.contiguous().to(**place), requires_grad=False)  # (R, out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return `x` (…, in) times the weights with their update, (…, out)."""
        y = self.base_layer(x)
        low = functional.linear(x.to(self.down.dtype), self.down)  # (…, R)
        if y.dtype != low.dtype:
            return y + (low @ self.up).to(y.dtype)
        # The base has just written y for us.
        return y.flatten(0, -2).addmm_(low.flatten(0, -2), self.up).view(y.shape)


def view_model(model: Any) -> Any:
    """Return a view of a model, to be changed at will: its modules are copies, its weights are the model's own.

    Takes some 10 µs a module, and no memory to speak of. The hooks that are on the model's modules now are in force on
    the view's too; those that are put on the view stay there.

    Args:
        model: Any module; of one that generates, the output layer reads packed rows in the view (see `PackedLinear`).

    Example:
        >>> layer = nn.Sequential(nn.Linear(2, 2))
        >>> view = view_model(layer)
        >>> view.note = "mine"
        >>> view[0] is layer[0], view[0].weight is layer[0].weight, hasattr(layer, "note")
        (False, True, False)
    """
    copies: dict[int, Any] = {}
    view = _copy_module(model, copies)
    if hasattr(model, "get_output_embeddings"):
        head = model.get_output_embeddings()
        packed = copies.get(id(head))
        # A layer of another class, quantised or with an adapter, has a product of its own.
        if type(packed) is nn.Linear:
            packed.__class__ = PackedLinear
    return view


def keeps_state(model: nn.Module) -> bool:
    """Tell whether a forward pass changes something in the model: the frequencies of dynamic RoPE.

    What only generation keeps (the offsets of M-RoPE) does not count.
    """
    kinds = (str(getattr(module, "rope_type", "")) for module in model.modules())
    return any("dynamic" in kind or "longrope" in kind for kind in kinds)


def _copy_module(module: nn.Module, copies: dict[int, Any]) -> Any:
    """Copy a module and those in it; one that stands in several places is copied once."""
    if id(module) not in copies:
        # Neither `copy.copy` nor `setattr`: with the checks of both a view takes fifteen times as long.
        twin = copies[id(module)] = object.__new__(type(module))
        vars(twin).update(vars(module))
        # A copy shares the original's tables; what a call registers there (buffers, hooks) must not reach them.
        for name, table in vars(module).items():
            if type(table) in (dict, OrderedDict) and name != "_parameters":
                vars(twin)[name] = table.copy()
        for name, child in module._modules.items():
            twin._modules[name] = child if child is None else _copy_module(child, copies)
    return copies[id(module)]
