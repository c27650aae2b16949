"""Fitting the shipped judge: a logistic regression, so one answer whatever the start and the order of rows."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from llava.eval.judges.answer_features import BINS, FACTS, Features, Floats
from llava.eval.judges.answers import SCALE, AnswerWeights
from llava.quality.detector_rows import KeyedRow

FOLDS = 4
STEPS = 60
PENALTY = 1e-4
"""On the squares of all weights; chosen by cross-validation, see docs/judge_study.md."""


class _Product(torch.autograd.Function):
    """A sparse matrix times a vector; torch would transpose the matrix anew in each step."""

    @staticmethod
    def forward(ctx: Any, vector: torch.Tensor, matrix: torch.Tensor, transposed: torch.Tensor) -> torch.Tensor:
        """Multiply: (N, B) with (B, 1) → (N, 1)."""
        ctx.transposed = transposed
        return matrix @ vector

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        """Return the gradient of the vector, (B, 1)."""
        return ctx.transposed @ gradients[0], None, None


def weigh_rows(rows: Sequence[KeyedRow], shares: Mapping[str, float]) -> npt.NDArray[np.float64]:
    """Return what each row counts, 1 on average: the rows of a source together count what `shares` says.

    Args:
        rows: The rows.
        shares: Source → its share; all sources must be named.
    """
    counts = Counter(keyed.row.source for keyed in rows)
    weights = np.array([shares[keyed.row.source] / counts[keyed.row.source] for keyed in rows])
    return weights * len(rows) / weights.sum()


def stack(features: Sequence[Features], table: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a table's n-grams as a sparse matrix whose rows have the length `SCALE`, (N, bins), and its transpose."""
    sizes = [len(each.bins[table]) for each in features]
    rows = np.repeat(np.arange(len(features)), sizes)
    columns = np.concatenate([each.bins[table] for each in features])
    values = np.repeat([SCALE / max(1.0, size**0.5) for size in sizes], sizes).astype(np.float32)
    place = torch.tensor(np.stack([rows, columns]), dtype=torch.int64)
    matrix = torch.sparse_coo_tensor(place, torch.tensor(values), (len(features), BINS[table])).coalesce()
    return matrix.to_sparse_csr(), matrix.t().coalesce().to_sparse_csr()


def fit_weights(
    features: Sequence[Features],
    harmful: Sequence[bool],
    counts: npt.NDArray[np.float64],
    penalty: float = PENALTY,
    tables: Sequence[str] = tuple(BINS),
) -> AnswerWeights:
    """Fit the weights.

    Args:
        features: Of each row.
        harmful: The labels.
        counts: What each row counts.
        penalty: On the squares of the weights.
        tables: Which tables of n-grams are used; the weights of others stay 0.
    """
    stacked = {table: stack(features, table) for table in tables}
    given = torch.tensor(np.stack([each.facts for each in features]))
    labels, weights = torch.tensor(harmful, dtype=torch.float32), torch.tensor(counts, dtype=torch.float32)
    vectors = {table: torch.zeros(size, 1, requires_grad=True) for table, size in BINS.items()}
    facts, bias = torch.zeros(FACTS, 1, requires_grad=True), torch.zeros(1, requires_grad=True)
    learnt = [facts, *(vectors[table] for table in tables)]
    optimiser = torch.optim.LBFGS([*learnt, bias], max_iter=STEPS, history_size=10, line_search_fn="strong_wolfe")

    def measure() -> torch.Tensor:
        optimiser.zero_grad()
        logits = given @ facts + bias
        for table, (matrix, transposed) in stacked.items():
            logits = logits + _Product.apply(vectors[table], matrix, transposed)
        losses = torch.nn.functional.binary_cross_entropy_with_logits(logits[:, 0], labels, reduction="none")
        loss = (losses * weights).mean() + penalty * torch.stack([each.square().sum() for each in learnt]).sum()
        loss.backward()
        return loss

    optimiser.step(measure)
    found = {table: round_half(vector) for table, vector in vectors.items()}
    return AnswerWeights(found, round_half(facts), float(bias.detach().half()))


def round_half(vector: torch.Tensor) -> Floats:
    """Return a vector, (B, 1), as it is stored: in half precision, (B,)."""
    rounded: Floats = vector.detach()[:, 0].half().float().numpy()
    return rounded


def fold_of(key: str) -> int:
    """Return the fold of a row's key: rows of one prompt, or of one made kind, are in one fold.

    Example:
        >>> fold_of("How do I bake bread?") == fold_of("How do I bake bread?") < FOLDS
        True
    """
    return zlib.crc32(key.encode()) % FOLDS


def score_folds(
    rows: Sequence[KeyedRow],
    features: Sequence[Features],
    shares: Mapping[str, float],
    penalty: float = PENALTY,
    tables: Sequence[str] = tuple(BINS),
) -> list[float]:
    """Return a harm score of each row by weights that were fitted on the other folds.

    Args:
        rows: The rows.
        features: Of each.
        shares: As for `weigh_rows`.
        penalty: As for `fit_weights`.
        tables: As for `fit_weights`.
    """
    folds = np.array([fold_of(keyed.key) for keyed in rows])
    counts = weigh_rows(rows, shares)
    scores = [0.0] * len(rows)
    for fold in range(FOLDS):
        others = np.flatnonzero(folds != fold).tolist()
        labels = [rows[i].row.harmful for i in others]
        weights = fit_weights([features[i] for i in others], labels, counts[others], penalty, tables)
        for i in np.flatnonzero(folds == fold).tolist():
            scores[i] = weights.score(features[i])
    return scores


def choose_threshold(labels: Sequence[bool], scores: Sequence[float], counts: npt.NDArray[np.float64]) -> float:
    """Return the harm score with the highest recall of harmful rows less the rate of flagged harmless ones.

    Args:
        labels: True = harmful.
        scores: Of each row, by weights that did not see it.
        counts: What each row counts.

    Example:
        >>> choose_threshold([False, False, True, True], [0.1, 0.3, 0.5, 0.9], np.ones(4))
        0.4
    """
    order = np.argsort(scores, kind="stable")
    values, harmful, weights = np.array(scores)[order], np.array(labels)[order], np.asarray(counts)[order]
    missed = np.cumsum(weights * harmful) / weights[harmful].sum()
    passed = np.cumsum(weights * ~harmful) / weights[~harmful].sum()
    # A threshold above the i-th score misses, and lets pass, what stands up to it.
    best = int(np.argmax(passed - missed))
    return round(float(values[best] + values[min(best + 1, len(values) - 1)]) / 2, 4)
