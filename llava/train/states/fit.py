"""Fitting a head: a logistic regression on pooled states, so one answer whatever the start and the order of rows."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from llava.data.training.answers import AnswerRow
from llava.protector.calibration import Calibration, calibrate_scores
from llava.protector.scoring.limits import SourceLimits
from llava.protector.states.config import POOLINGS
from llava.quality.metrics import Scored, auroc
from llava.train.states.cache import LAST, WHOLE, PooledStates

logger = logging.getLogger(__name__)

PENALTIES = (1e-3, 1e-2, 1e-1)
"""On the mean square of the weights of standardised states, summed over a state; the dev rows choose."""
STEPS = 200
LEAST_DEVIATION = 1e-6
"""A number of a state that never changes says nothing."""
PLACES = {"mean": (WHOLE,), "mean+last": (WHOLE, LAST)}
"""What is read of the pooled states for each pooling."""


@dataclass(frozen=True)
class Fitted:
    """A logistic regression in the form that a head has: of states as they are."""

    directions: torch.Tensor
    """Float32, (K, H)."""
    bias: float

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """Return the harm logits of pooled states, (N, K, H) → (N,)."""
        return torch.einsum("nkh,kh->n", states.double(), self.directions.double()) + self.bias


@dataclass(frozen=True)
class Candidate:
    """One way to make a head, and how well it orders the dev rows."""

    layer: int
    pooling: str
    penalty: float
    auroc: float


def gather(states: PooledStates, layer: int, pooling: str) -> torch.Tensor:
    """Return what a head reads of each row, (N, K, H)."""
    return torch.stack([states.read(layer, place) for place in PLACES[pooling]], dim=1)


def fit_head(states: torch.Tensor, targets: Sequence[float], weights: Sequence[float], penalty: float) -> Fitted:
    """Fit a logistic regression by L-BFGS on standardised states.

    Args:
        states: Pooled states, (N, K, H).
        targets: 1 = harmful, 0 = harmless, and what lies between, (N,).
        weights: What each row counts, (N,).
        penalty: On the squares of the weights.

    Returns:
        The head of the states as they are: the standardisation is part of its weights.
    """
    rows = states.flatten(1).double()  # (N, K·H)
    mean, deviation = rows.mean(dim=0), rows.std(dim=0, correction=0)
    scale = torch.where(deviation > LEAST_DEVIATION, 1 / deviation, 0.0)
    inputs = (rows - mean) * scale
    wanted = torch.tensor(targets, dtype=torch.float64)
    counts = torch.tensor(weights, dtype=torch.float64)
    counts = counts / counts.sum()
    vector = torch.zeros(inputs.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([vector, bias], max_iter=STEPS, history_size=20, line_search_fn="strong_wolfe")

    def measure() -> torch.Tensor:
        optimiser.zero_grad()
        losses = torch.nn.functional.binary_cross_entropy_with_logits(inputs @ vector + bias, wanted, reduction="none")
        loss = (losses * counts).sum() + penalty * vector.square().sum()
        loss.backward()
        return loss

    optimiser.step(measure)
    folded = vector.detach() * scale
    return Fitted(folded.float().reshape(states.shape[1:]), float(bias.detach() - folded @ mean))


def choose_head(
    train: PooledStates,
    dev: PooledStates,
    poolings: Sequence[str] = tuple(POOLINGS),
    penalties: Sequence[float] = PENALTIES,
) -> tuple[Candidate, Fitted, list[Candidate]]:
    """Fit a head for every layer, pooling and penalty, and return the one that orders the dev rows best.

    Args:
        train: Pooled states of the rows to learn from.
        dev: Pooled states of the rows that choose.
        poolings: Poolings to try.
        penalties: Penalties to try.

    Returns:
        The best candidate, its weights, and all candidates.
    """
    labels = np.array([row.harmful for row in dev.rows], dtype=bool)
    targets, weights = [row.target for row in train.rows], [row.weight for row in train.rows]
    found: list[tuple[Candidate, Fitted]] = []
    for layer in train.layers:
        for pooling in poolings:
            states, others = gather(train, layer, pooling), gather(dev, layer, pooling)
            for penalty in penalties:
                fitted = fit_head(states, targets, weights, penalty)
                scores = torch.sigmoid(fitted.logits(others)).numpy()
                value = auroc(Scored(labels, scores, np.arange(len(labels))))
                found.append((Candidate(layer, pooling, penalty, value), fitted))
                logger.info("layer %d, %s, penalty %g: dev AUROC %.4f", layer, pooling, penalty, value)
    best = max(found, key=lambda item: item[0].auroc)
    return best[0], best[1], [candidate for candidate, _ in found]


def calibrate_head(
    fitted: Fitted,
    states: torch.Tensor,
    rows: Sequence[AnswerRow],
    rate: float,
    limits: dict[str, float] | None = None,
) -> tuple[Calibration, np.ndarray]:
    """Return the temperature and threshold of a head, and the scores of the rows at that temperature, (N,).

    Args:
        fitted: The head.
        states: Pooled states of the rows, (N, K, H).
        rows: Labelled rows that it did not learn from.
        rate: Largest share of harmless rows to flag.
        limits: The same by source.

    Raises:
        ValueError: When a class has no row, or no threshold keeps a limit.
    """
    logits = fitted.logits(states)
    labels = np.array([row.harmful for row in rows], dtype=bool)
    by_source = SourceLimits([row.source for row in rows], dict(limits or {}))
    found = calibrate_scores(torch.sigmoid(logits).numpy(), labels, ~labels, rate, by_source=by_source)
    return found, torch.sigmoid(logits / found.temperature).numpy()
