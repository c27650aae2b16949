"""The logits of many windows with little waste: what is said twice is read once, and like lengths go together.

A forward pass costs what its tokens cost, padding included, and something for being a pass. So the same window is read
once, the question that several windows answer is read once and kept for all of them, and the rest is sorted by length
and cut into passes of a bounded number of tokens.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from transformers import DynamicCache

from llava.model.answering.prompt_cache import attends_to_everything, pass_cost
from llava.protector.classifier import pad_windows
from llava.protector.text import Window

if TYPE_CHECKING:
    from llava.protector.classifier import HarmClassifier

LEAST_SHARED = 8
"""Tokens of a question from which it may be kept for several windows."""
KEPT_TOKENS = 1024
"""Tokens of questions, padding included, that are kept at a time."""
SHARING: weakref.WeakKeyDictionary[Any, bool] = weakref.WeakKeyDictionary()
"""For each network in use, whether windows of several lengths can go on from kept questions; gone with it."""


class Settings(NamedTuple):
    """What all passes of one call have in common."""

    pad_token_id: int
    """What short rows are padded with."""
    budget: int
    """Most tokens of a pass, padding included."""
    pass_cost: int
    """What a pass costs beside its tokens, in tokens."""


def read_logits(
    network: HarmClassifier, windows: Sequence[Window], *, pad_token_id: int = 0, budget: int = 4096
) -> list[float]:
    """Return the network's logit of each window, as `HarmClassifier.forward` gives it for the window alone.

    Args:
        network: The network; it is not changed.
        windows: What to score.
        pad_token_id: What short rows are padded with.
        budget: Most tokens of a pass, padding included; a window that has more goes alone.

    Returns:
        One logit a window, in their order. In single precision they differ by rounding, some 1e-6, from one by one.
    """
    settings = Settings(pad_token_id, budget, pass_cost(network.device))
    keys = [(tuple(window.ids), window.head) for window in windows]
    found: dict[tuple[tuple[int, ...], int], float] = {}
    distinct = [Window(list(ids), head) for ids, head in dict.fromkeys(keys)]
    groups = find_groups(network, distinct, settings)
    for window, logit in _read_all(network, distinct, groups, settings):
        found[tuple(window.ids), window.head] = logit
    return [found[key] for key in keys]


def _read_all(
    network: HarmClassifier, windows: list[Window], groups: list[list[Window]], settings: Settings
) -> Iterator[tuple[Window, float]]:
    """Yield each window with its logit: those of groups in blocks, the others as they are."""
    grouped = {id(window) for group in groups for window in group}
    alone = sorted((window for window in windows if id(window) not in grouped), key=lambda window: len(window.ids))
    for start, stop in cut_passes([len(window.ids) for window in alone], settings):
        part = alone[start:stop]
        yield from zip(part, _read_whole(network, part, settings), strict=True)
    for block in form_blocks(groups):
        yield from _read_block(network, block, settings)


def find_groups(network: HarmClassifier, windows: Sequence[Window], settings: Settings) -> list[list[Window]]:
    """Return the windows that share their head with others, group by group; none where keeping it gains nothing."""
    by_head: dict[tuple[int, ...], list[Window]] = {}
    # With `mean` pooling the question's own states count too, which nobody keeps.
    for window in windows if network.pooling != "mean" else ():
        if window.head >= LEAST_SHARED:
            by_head.setdefault(tuple(window.ids[: window.head]), []).append(window)
    groups = [group for group in by_head.values() if len(group) > 1]
    saved = sum((len(group) - 1) * group[0].head for group in groups)
    # Each group's rows go in other passes than the rest: two more, at least.
    return groups if saved > 2 * settings.pass_cost and can_share(network) else []


def form_blocks(groups: Sequence[list[Window]]) -> Iterator[list[list[Window]]]:
    """Yield groups whose heads are kept at the same time, those of similar length together.

    Example:
        >>> long, short, other = [Window([1] * 901, 900)], [Window([2] * 9, 8)], [Window([3] * 10, 9)]
        >>> [[group[0].head for group in block] for block in form_blocks([long, short, other])]
        [[8, 9], [900]]
    """
    block: list[list[Window]] = []
    for group in sorted(groups, key=lambda group: group[0].head):
        if block and (len(block) + 1) * group[0].head > KEPT_TOKENS:
            yield block
            block = []
        block.append(group)
    if block:
        yield block


def cut_passes(lengths: Sequence[int], settings: Settings, before: int = 0) -> Iterator[tuple[int, int]]:
    """Cut rows, the shortest first, into passes.

    A pass ends where the next row would exceed the budget, or would make the padding of the rows before it cost more
    than another pass.

    Args:
        lengths: Tokens of each row, ascending.
        settings: Budget, and what a pass costs.
        before: Tokens that are kept before each row; they count towards the budget.

    Yields:
        First row and the one behind the last.

    Example:
        >>> list(cut_passes([10, 11, 12, 90, 90, 90], Settings(0, 200, 32)))
        [(0, 3), (3, 5), (5, 6)]
    """
    start = tokens = 0
    for place, length in enumerate(lengths):
        rows = place - start + 1
        padded = rows * length
        too_much = padded + rows * before > settings.budget or padded - tokens - length > settings.pass_cost
        if rows > 1 and too_much:
            yield start, place
            start, tokens = place, 0
        tokens += length
    if lengths:
        yield start, len(lengths)


def _read_whole(network: HarmClassifier, windows: Sequence[Window], settings: Settings) -> list[float]:
    """Return the logits of windows in one pass."""
    batch = pad_windows(windows, settings.pad_token_id)
    with torch.inference_mode():
        logits = network(**{name: tensor.to(network.device) for name, tensor in batch.items()}).logits  # (B, 1)
    return logits[:, 0].double().tolist()


def _read_block(
    network: HarmClassifier, block: Sequence[list[Window]], settings: Settings
) -> Iterator[tuple[Window, float]]:
    """Yield each window of some groups with its logit; the heads are read first, in one pass, and kept."""
    heads = [Window(group[0].ids[: group[0].head]) for group in block]
    kept = _keep_heads(network, heads, settings)
    rows = [(number, window) for number, group in enumerate(block) for window in group]
    rows.sort(key=lambda row: len(row[1].ids) - row[1].head)
    lengths = [len(window.ids) - window.head for _, window in rows]
    for start, stop in cut_passes(lengths, settings, before=max(len(head.ids) for head in heads)):
        part = rows[start:stop]
        logits = _read_behind(network, kept, [number for number, _ in part], [window for _, window in part], settings)
        yield from zip([window for _, window in part], logits, strict=True)


def _keep_heads(
    network: HarmClassifier, heads: Sequence[Window], settings: Settings
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return the keys and values of heads, layer by layer, (H, heads, P, D), padded on the right."""
    batch = pad_windows(heads, settings.pad_token_id)
    cache = DynamicCache()
    with torch.inference_mode():
        place = network.device
        network.read(batch["input_ids"].to(place), batch["attention_mask"].to(place), cache=cache)
    return [(layer.keys, layer.values) for layer in cache.layers]


def _read_behind(
    network: HarmClassifier,
    kept: Sequence[tuple[torch.Tensor, torch.Tensor]],
    numbers: Sequence[int],
    windows: Sequence[Window],
    settings: Settings,
) -> list[float]:
    """Return the logits of windows in one pass that goes on from kept heads.

    Args:
        network: The network.
        kept: What `_keep_heads` returned.
        numbers: Which head each window has.
        windows: The windows.
        settings: What all passes have in common.
    """
    tails = pad_windows([Window(window.ids[window.head :]) for window in windows], settings.pad_token_id)
    lengths = torch.tensor([[window.head] for window in windows])  # (B, 1)
    width = int(lengths.max())
    before = (torch.arange(width) < lengths).long()  # (B, P); what pads a head is not looked at
    positions = lengths + torch.arange(tails["input_ids"].shape[1])  # (B, T)
    mask = torch.cat([before, tails["attention_mask"]], dim=1)  # (B, P + T)
    with torch.inference_mode():
        cache, which = DynamicCache(), torch.tensor(numbers)
        for layer, (keys, values) in enumerate(kept):
            rows = which.to(keys.device)
            cache.update(keys[rows, :, :width], values[rows, :, :width], layer)
        place = network.device
        hidden = network.read(tails["input_ids"].to(place), mask.to(place), positions.to(place), cache)
        logits = network.decide(
            hidden, tails["attention_mask"].to(hidden.device), tails["response_mask"].to(hidden.device)
        )
    return logits[:, 0].double().tolist()


def can_share(network: HarmClassifier) -> bool:
    """Tell whether a network reads windows behind kept heads of several lengths as it reads them whole.

    Windows that attend to some tokens only would lose their count, dynamic RoPE its frequencies. Of all others a few
    short windows are read in both ways, once for each network.
    """
    if network not in SHARING:
        SHARING[network] = attends_to_everything(network) and _reads_behind_heads(network)
    return SHARING[network]


def _reads_behind_heads(network: HarmClassifier) -> bool:
    """Tell whether a few windows have the same logits whole and behind kept heads."""
    windows = [Window([1, 2, 3, 4, 5], 3), Window([5, 4, 3, 2, 1, 2, 3, 4], 5), Window([1, 2, 3, 5, 6, 7], 3)]
    settings = Settings(0, 1 << 20, 1 << 20)
    try:
        plain = torch.tensor(_read_whole(network, windows, settings))
        groups = [[windows[0], windows[2]], [windows[1]]]
        behind = {id(window): logit for window, logit in _read_block(network, groups, settings)}
        other = torch.tensor([behind[id(window)] for window in windows])
    except Exception:  # noqa: BLE001 - a cache of another kind, a network without one: each fails in its own way
        return False
    # Half precision rounds each pass in its own way: 3e-4 for float32, 0.03 for float16, 0.09 for bfloat16.
    tolerance = torch.finfo(network.backbone.dtype).eps ** 0.5 * max(1.0, plain.abs().max().item())
    # A network that gives no finite number is read as it is; what it gives is withheld.
    return (plain - other).abs().nan_to_num(0.0).max().item() <= tolerance
