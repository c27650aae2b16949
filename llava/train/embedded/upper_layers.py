"""Training of the embedded detector's upper layers on states that the lower ones left on disk.

The adapter that it starts from stays in force below; above, and in the head, it is trained on. What is saved is one
adapter over all layers.
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from llava.protector.classifier import HarmClassifier, load_sequence_classifier
from llava.protector.config import ProtectorConfig
from llava.protector.scoring.stretches import pool_stretches, running_logits
from llava.train.embedded.states import StateStore, run_layers
from llava.train.lora import continue_adapter
from llava.train.losses import bce_loss, pairwise_loss

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Example:
    """A training row by the number of its window."""

    number: int
    """Which window of the store."""
    harmful: bool
    """The label."""
    weight: float
    """Factor on its loss; the mean over all rows is 1."""
    turn: int = 0
    """Tells the times apart that a row comes in an epoch."""


@dataclass(frozen=True)
class Settings:
    """How the upper layers learn."""

    first_layer: int = 12
    """The lowest layer that is trained."""
    epochs: int = 3
    """Passes over the rows."""
    learning_rate: float = 2e-4
    """Peak of the adapter's."""
    head_rate: float = 1e-3
    """Peak of the head's."""
    batch_tokens: int = 1536
    """Padded tokens of a step, in each process."""
    prefix_weight: float = 0.3
    """Factor on the loss of a random prefix; see `prefix_ends`."""
    pair_weight: float = 0.3
    """Factor on the ranking loss of a pair."""
    seed: int = 0
    """Seed of order, prefixes and dropout."""
    stretches: tuple[int, ...] = (32, 64)
    """Tokens of the stretches; see `ProtectorConfig`."""
    betas: tuple[float, float] = field(default=(0.9, 0.98))
    """AdamW's."""


class UpperDetector:
    """The network from a layer upwards, with the adapter that is trained."""

    def __init__(self, base: str, adapter: Path, config: ProtectorConfig, settings: Settings):
        """Load base and adapter; only what lies from `settings.first_layer` upwards is trained."""
        classifier = load_sequence_classifier(base, num_layers=config.num_layers)
        network = HarmClassifier(classifier, config.pooling, settings.stretches)
        self.settings = settings
        self.model: Any = continue_adapter(network, str(adapter), base, settings.first_layer)

    @property
    def network(self) -> Any:
        """The classifier with the adapter in it."""
        return self.model.base_model.model

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return what is trained, adapter and head, each with its own rate."""
        named = [(name, weight) for name, weight in self.model.named_parameters() if weight.requires_grad]
        return [
            {"params": [weight for name, weight in named if "score" not in name], "lr": self.settings.learning_rate},
            {"params": [weight for name, weight in named if "score" in name], "lr": self.settings.head_rate},
        ]

    def save(self, folder: Path) -> None:
        """Write the adapter."""
        self.model.save_pretrained(folder, save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty model card

    def token_logits(self, states: torch.Tensor) -> torch.Tensor:
        """Return the head's logit at every token, (B, T), from states below the first trained layer, (B, T, H)."""
        backbone = self.network.backbone
        states = run_layers(backbone, states, self.settings.first_layer, len(backbone.layers))
        logits: torch.Tensor = self.network.score(backbone.norm(states))[..., 0]
        return logits


def prefix_ends(counts: torch.Tensor, labels: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    """Draw how many tokens of each response are out when it is judged early.

    Every prefix of a harmless response is harmless. A harmful one becomes harmful somewhere, nobody knows where: only
    its second half is held to be.

    Args:
        counts: Tokens of the responses, (B,).
        labels: 1 = harmful, (B,).
        draw: Source of chance.

    Returns:
        Tokens, from 1 to the whole, (B,).
    """
    least = torch.where(labels > 0, (counts + 1) // 2, torch.ones_like(counts))
    share = torch.rand(counts.shape, generator=draw)
    return least + (share * (counts - least + 1)).long().clamp(max=counts - least)


def row_losses(
    detector: UpperDetector, store: StateStore, rows: Sequence[Example], draw: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the loss of each row with its factor, and its harm logit, (B,) each."""
    batch = store.read([row.number for row in rows])
    logits = detector.token_logits(batch.states)
    labels = torch.tensor([float(row.harmful) for row in rows])
    weights = torch.tensor([row.weight for row in rows])
    stretches = detector.settings.stretches
    whole = pool_stretches(logits, batch.response_mask, stretches)
    losses = bce_loss(whole, labels)
    if detector.settings.prefix_weight:
        counts = batch.response_mask.sum(1).long()
        heads = batch.response_mask.argmax(1)
        ends = heads + prefix_ends(counts, labels, draw) - 1
        running = running_logits(logits, batch.response_mask, stretches)
        early = bce_loss(running.gather(1, ends[:, None])[:, 0], labels)
        losses = losses + detector.settings.prefix_weight * early
    return weights * losses, whole


def form_batches(
    store: StateStore, units: Sequence[tuple[Example, ...]], tokens: int, seed: int
) -> Iterator[list[tuple[Example, ...]]]:
    """Give the units of an epoch in batches of similar length, in random order."""
    draw = random.Random(seed)
    length = {unit: max(int(store.lengths[row.number]) for row in unit) for unit in units}
    # A little noise: rows of one length do not meet in every epoch.
    order = sorted(units, key=lambda unit: -length[unit] * draw.uniform(0.85, 1.15))
    batches: list[list[tuple[Example, ...]]] = []
    batch: list[tuple[Example, ...]] = []
    for unit in order:
        size = sum(len(other) for other in (*batch, unit))
        if batch and size * max(length[other] for other in (*batch, unit)) > tokens:
            batches.append(batch)
            batch = []
        batch.append(unit)
    batches += [batch] if batch else []
    draw.shuffle(batches)
    yield from batches


def train_upper(
    detector: UpperDetector,
    store: StateStore,
    units: Sequence[tuple[Example, ...]],
    folder: Path,
    rank: int = 0,
    world: int = 1,
) -> None:
    """Train, and save the adapter after every epoch.

    Args:
        detector: What is trained.
        store: The states.
        units: Rows alone, or the (less harmful, more harmful) rows of a pair.
        folder: Where the adapter goes: `folder/epoch-1` and so on.
        rank: Number of this process, where several share the work in a process group.
        world: How many there are.
    """
    settings = detector.settings
    torch.manual_seed(settings.seed + rank)
    draw = torch.Generator().manual_seed(settings.seed + rank)
    optimiser = torch.optim.AdamW(detector.parameter_groups(), weight_decay=0.01, betas=settings.betas)
    steps = [
        len(list(form_batches(store, units, settings.batch_tokens, epoch))) // world for epoch in range(settings.epochs)
    ]
    total, step, started = sum(steps), 0, time.monotonic()
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda at: rate_at(at, total))
    rows_a_step = sum(map(len, units)) / (sum(steps) / settings.epochs) / world
    seen = {True: [0.0, 0.0], False: [0.0, 0.0]}
    detector.model.train()
    for epoch in range(settings.epochs):
        batches = list(form_batches(store, units, settings.batch_tokens, epoch))
        for batch in batches[rank : steps[epoch] * world : world]:
            rows = [row for unit in batch for row in unit]
            losses, logits = row_losses(detector, store, rows, draw)
            # Divided by what a step holds on average, not by what this one does: batches of short rows hold more.
            loss = losses.sum() / rows_a_step
            pairs = [
                (at, at + 1) for at, row in enumerate(rows) if at + 1 < len(rows) and is_pair(batch, row, rows[at + 1])
            ]
            if pairs:
                chosen, rejected = (torch.tensor(side) for side in zip(*pairs, strict=True))
                ranking = pairwise_loss(logits[chosen], logits[rejected]).sum()
                loss = loss + settings.pair_weight * ranking / rows_a_step
            optimiser.zero_grad()
            loss.backward()
            average_gradients(optimiser, world)
            weights = [weight for group in optimiser.param_groups for weight in group["params"]]
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimiser.step()
            schedule.step()
            step += 1
            for row, value in zip(rows, losses.detach().tolist(), strict=True):
                seen[row.harmful][0] += value
                seen[row.harmful][1] += row.weight
            if step % 10 == 0 and rank == 0:
                shown = {label: round(sums / max(weight, 1e-9), 4) for label, (sums, weight) in seen.items()}
                logger.info("step %d of %d, %.0f s, loss %s", step, total, time.monotonic() - started, shown)
                seen = {True: [0.0, 0.0], False: [0.0, 0.0]}
        if rank == 0:
            detector.save(folder / f"epoch-{epoch + 1}")


def is_pair(batch: Sequence[tuple[Example, ...]], one: Example, other: Example) -> bool:
    """Tell whether two rows of a batch are the two sides of a pair."""
    return (one, other) in batch


def rate_at(step: int, total: int) -> float:
    """Return the share of the peak rate: a short rise, then half a cosine down to a tenth.

    Example:
        >>> rate_at(0, 100) < 0.5, round(rate_at(100, 100), 3)
        (True, 0.1)
    """
    rise = max(1, total // 30)
    if step < rise:
        return (step + 1) / (rise + 1)
    return 0.1 + 0.9 * (1 + math.cos(math.pi * min(1.0, (step - rise) / max(1, total - rise)))) / 2


def average_gradients(optimiser: torch.optim.Optimizer, world: int) -> None:
    """Let the processes of a group take the same step, along the mean of their gradients."""
    if world == 1:
        return
    weights = [weight for group in optimiser.param_groups for weight in group["params"]]
    gradients = [weight.grad if weight.grad is not None else torch.zeros_like(weight) for weight in weights]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    torch.distributed.all_reduce(flat)
    flat /= world
    start = 0
    for weight in weights:
        weight.grad = flat[start : start + weight.numel()].view_as(weight).clone()
        start += weight.numel()
