"""The cache of a batch that decodes: its memory grows by pieces, and what all prompts begin with is read once."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer
from transformers.generation.utils import GenerateDecoderOnlyOutput

from llava.model.views import keeps_state

CACHE = next(name for name in ("cache", "past_key_values") if name in GenerateDecoderOnlyOutput.__dataclass_fields__)
"""What this version of transformers calls the cache; it was renamed in the 5 series."""
PASS_COST = 32
"""What a pass costs beside its tokens, in tokens. Measured for the embedded detector on a CPU: 26 to 28."""
PASS_COST_ACCELERATOR = 1024
"""The same where kernels wait for their launch rather than for their numbers."""
LEAST_GROWTH, GROWTH = 16, 8
"""The memory of a full cache grows by an eighth, and by 16 tokens at least."""


class GrowingLayer(DynamicLayer):
    """A cache layer with room for the tokens to come.

    `DynamicLayer` copies all that it holds at every step, to put one token behind it. Measured for 32 rows of 110
    tokens of the embedded model, on a CPU: an eighth to a third of a step. Here a token is written behind the others,
    and they are copied only when the room is used up.
    """

    keys: Any
    values: Any
    _stores: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Put keys and values (B, heads, T, D) behind those that are there; return all, (B, heads, P + T, D)."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        before = self.get_seq_length()
        whole = before + key_states.shape[-2]
        stores = self._stores
        if stores is None or not (
            self._begins(stores[0], self.keys, whole) and self._begins(stores[1], self.values, whole)
        ):
            room = whole + max(LEAST_GROWTH, whole // GROWTH)
            stores = self._stores = (_with_room(key_states, room), _with_room(value_states, room))
            if before:
                stores[0][..., :before, :] = self.keys
                stores[1][..., :before, :] = self.values
        stores[0][..., before:whole, :] = key_states
        stores[1][..., before:whole, :] = value_states
        self.keys, self.values = stores[0][..., :whole, :], stores[1][..., :whole, :]
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep some of the rows; the memory of all of them is given back at once, not with the next token."""
        super().batch_select_indices(indices)
        self._stores = None

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each row."""
        super().batch_repeat_interleave(repeats)
        self._stores = None

    @staticmethod
    def _begins(store: torch.Tensor, held: torch.Tensor, whole: int) -> bool:
        """Tell whether what is held is the beginning of the store still, and there is room for `whole` tokens."""
        same = held.data_ptr() == store.data_ptr() and held.shape[:-2] == store.shape[:-2]
        return same and whole <= store.shape[-2]


def _with_room(states: torch.Tensor, tokens: int) -> torch.Tensor:
    """Return memory for so many tokens of such states, (…, tokens, D)."""
    return states.new_empty(*states.shape[:-2], tokens, states.shape[-1])


def make_cache(model: Any) -> DynamicCache:
    """Return an empty cache for a model whose layers that attend to everything grow as `GrowingLayer` does."""
    cache = DynamicCache(config=model.config.get_text_config(decoder=True))
    cache.layers = [GrowingLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def add_cache(view: Any, inputs: dict[str, torch.Tensor], ends: Sequence[int] = (1,)) -> dict[str, Any]:
    """Return the inputs of a batch with a cache, in which what all its rows begin with is read already.

    Args:
        view: A private view of a model that goes on from token ids and its cache.
        inputs: Its inputs: `input_ids` (B, T) padded on the left, `attention_mask`, pictures.
        ends: Tokens at the end of each row, or of all, that are not read yet in any case; 1 at least.

    Returns:
        The inputs. Where something is read, what pads a row stands behind it; rows are as wide as they were, and the
        last positions are the same.
    """
    shared = find_shared_beginning(view, inputs, ends)
    return read_beginning(view, inputs, shared) if shared else inputs | {CACHE: make_cache(view)}


def find_shared_beginning(model: Any, inputs: dict[str, torch.Tensor], ends: Sequence[int] = (1,)) -> int:
    """Return how many tokens all prompts of a batch begin with that are worth reading once, before any picture.

    Args:
        model: The model.
        inputs: Its inputs, padded on the left.
        ends: Tokens at the end of each row, or of all, that are read with their row in any case; 1 at least.

    Returns:
        Their number; 0 where reading them apart gains nothing, or the model cannot go on from them.
    """
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    width = ids.shape[1]
    lengths = mask.sum(dim=1)
    most = int((lengths - torch.tensor(ends, device=ids.device)).min())
    if len(ids) < 2 or most < 1 or not attends_to_everything(model):
        return 0
    columns = (width - lengths)[:, None] + torch.arange(most, device=ids.device)  # (B, most)
    starts = ids.gather(1, columns)
    same = (starts == starts[:1]).all(dim=0)
    if "pixel_values" in inputs:
        image_token = getattr(model.config, "image_token_id", None)
        if image_token is None:
            return 0
        same &= starts[0] != image_token
    shared = int(same.long().cumprod(dim=0).sum())
    return shared if (len(ids) - 1) * shared > 2 * pass_cost(ids.device) else 0


def pass_cost(device: torch.device) -> int:
    """Return what a pass on a device costs beside its tokens, in tokens."""
    return PASS_COST if device.type == "cpu" else PASS_COST_ACCELERATOR


def attends_to_everything(model: Any) -> bool:
    """Tell whether every layer attends to all tokens before, and positions mean the same in every pass."""
    config = model.config.get_text_config(decoder=True)
    plain = set(getattr(config, "layer_types", None) or ()) <= {"full_attention"}
    return plain and getattr(config, "sliding_window", None) is None and not keeps_state(model)


def read_beginning(view: Any, inputs: dict[str, torch.Tensor], shared: int) -> dict[str, Any]:
    """Read the tokens that all rows begin with, once, and return the inputs to go on with; see `add_cache`."""
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    start = int(ids.shape[1] - mask[0].sum())
    beginning = ids[:1, start : start + shared]
    cache = make_cache(view)
    more: dict[str, Any] = (
        {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(view.forward).parameters else {}
    )
    view(input_ids=beginning, attention_mask=torch.ones_like(beginning), use_cache=True, **{CACHE: cache}, **more)
    cache.batch_repeat_interleave(len(ids))
    # The beginning stood behind each row's padding. Its tokens may stay there, for the mask hides them.
    behind = mask.cumsum(dim=1) > shared  # (B, T)
    return {
        **inputs,
        "input_ids": torch.cat([beginning.expand(len(ids), -1), ids[:, shared:]], dim=1),
        "attention_mask": torch.cat([mask.new_ones(len(ids), shared), behind.to(mask.dtype)[:, shared:]], dim=1),
        CACHE: cache,
    }
