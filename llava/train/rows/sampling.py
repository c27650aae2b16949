"""The order of training examples: mixed by source, grouped by length, and the same for any number of processes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import Sampler

MEGABATCH = 16
"""Global batches that are sorted by length together: little padding, and still mostly random batches."""


class MixtureSampler(Sampler[int]):
    """Yields example indices, global batch by global batch.

    The order depends on seed and epoch alone. Consecutive `global_batch` indices are one optimiser step, however they
    are dealt out to processes and accumulation steps, so one process and eight take the same steps. An incomplete last
    batch is left out (its examples come first in line in no fixed place: every epoch is shuffled anew).

    With groups, a global batch holds examples of one group only. A group of too few examples for one batch is repeated
    until it fills it, for it would never be seen otherwise.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        global_batch: int,
        seed: int = 0,
        sources: Sequence[str] | None = None,
        shares: Mapping[str, float] | None = None,
        groups: Sequence[str] | None = None,
    ):
        """Plan for examples of the given lengths.

        Args:
            lengths: Length of each example, in tokens.
            global_batch: Examples in one optimiser step, over all processes and accumulation steps.
            seed: Seed of the order.
            sources: Source of each example; None means one source.
            shares: How often an epoch sees each example of a source (1 when absent). With 0.5 the two halves take
                turns, with 1.5 every example comes once and half of them once more.
            groups: Kind of each example, which batches do not mix; None means one kind.
        """
        self.lengths = lengths
        self.global_batch = global_batch
        self.seed = seed
        self.epoch = 0
        sources = sources or [""] * len(lengths)
        groups = groups or [""] * len(lengths)
        self.members: dict[tuple[str, str], list[int]] = {}
        """Examples by group and source."""
        for index, key in enumerate(zip(groups, sources, strict=True)):
            self.members.setdefault(key, []).append(index)
        shares = shares or {}
        self.counts = {
            key: max(1, round(len(members) * shares.get(key[1], 1.0))) for key, members in self.members.items()
        }
        self.sizes = self._size_groups()

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; the Trainer calls this, also when it resumes."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Return the number of indices in an epoch."""
        return sum(self.sizes.values())

    def _size_groups(self) -> dict[str, int]:
        """Return how many indices an epoch has of each group."""
        totals: dict[str, int] = {}
        for (group, _), count in self.counts.items():
            totals[group] = totals.get(group, 0) + count
        short = self.global_batch if len(totals) > 1 else min(totals.values(), default=0)
        return {group: total - total % self.global_batch or short for group, total in totals.items()}

    def __iter__(self) -> Iterator[int]:
        """Yield the indices of this epoch."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        batches: list[list[int]] = []
        span = MEGABATCH * self.global_batch
        for group, size in self.sizes.items():
            chosen = [index for key in self.members if key[0] == group for index in self._draw(key)]
            order = [chosen[i] for i in torch.randperm(len(chosen), generator=generator).tolist()]
            order = (order * (size // len(order) + 1))[:size]
            for start in range(0, len(order), span):
                part = sorted(order[start : start + span], key=lambda index: self.lengths[index])
                batches += [part[i : i + self.global_batch] for i in range(0, len(part), self.global_batch)]
        for position in torch.randperm(len(batches), generator=generator).tolist():
            yield from batches[position]

    def _draw(self, key: tuple[str, str]) -> list[int]:
        """Return the examples of one group and source for this epoch: a window that moves over a fixed random order."""
        members, count = self.members[key], self.counts[key]
        generator = torch.Generator().manual_seed(self.seed)
        order = torch.randperm(len(members), generator=generator).tolist()
        start = self.epoch * count
        return [members[order[i % len(members)]] for i in range(start, start + count)]


class MixtureSamplerMixin:
    """Lets a Hugging Face Trainer draw its training examples with a `MixtureSampler`."""

    args: Any
    sampling: dict[str, Any]
    """Arguments of `MixtureSampler` but for batch and seed."""

    def _get_train_sampler(self, train_dataset: Any = None) -> MixtureSampler:
        """Return the sampler; called by the Trainer."""
        global_batch = self.args.train_batch_size * self.args.world_size * self.args.gradient_accumulation_steps
        return MixtureSampler(global_batch=global_batch, seed=self.args.data_seed or self.args.seed, **self.sampling)
