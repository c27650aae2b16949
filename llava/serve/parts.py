"""The detector and the detoxifier as one request sees them: their work goes through the common batches."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

from llava.data.token_scores import TokenScore
from llava.protector.detoxifier import MAX_NEW_TOKENS, REWRITE_BATCH_SIZE, Detoxifier
from llava.protector.guards.base import ExplainingGuard, Guard, score_responses
from llava.serve.batching import Batcher


class BatchedGuard:
    """A guard for one request: the server's own, through its batches and within a time limit.

    The clock begins with the request, so that what waits for a thread counts too. A second look, at a rewrite, has the
    whole time again.
    """

    def __init__(self, guard: Guard, batcher: Batcher, seconds: float):
        """Score with `guard`, waiting at most so many seconds for each look."""
        self.guard = guard
        self.batcher = batcher
        self.seconds = seconds
        self.deadline = time.monotonic() + seconds
        self.name = guard.name
        self.failed: Exception | None = None

    @property
    def identity(self) -> str:
        """What the guard is."""
        return self.guard.identity

    @property
    def threshold(self) -> float:
        """Where the guard flags unless told otherwise."""
        return self.guard.threshold

    def score(self, responses: Sequence[str], prompts: Sequence[str]) -> list[float]:
        """Return one harm score a response; NaN for one that the guard failed at alone, which `failed` then names.

        Raises:
            Exception: What the guard failed with, when it failed at every response, or the time is over.
        """
        items = list(zip(responses, prompts, strict=True))
        outcomes = self.batcher.submit(items, min(self.seconds, self.deadline - time.monotonic()))
        self.deadline = math.inf
        self.failed = find_failure(outcomes) or self.failed
        return [math.nan if isinstance(outcome, Exception) else outcome for outcome in outcomes]


class ExplainingBatchedGuard(BatchedGuard):
    """A `BatchedGuard` whose guard can tell where the harm is; all that it tells for a request has one time limit."""

    def __init__(self, guard: ExplainingGuard, batcher: Batcher, seconds: float):
        """Score and explain with `guard`."""
        super().__init__(guard, batcher, seconds)
        self.explainer = guard
        self.explained_by: float | None = None

    def explain(self, prompt: str, response: str) -> list[TokenScore]:
        """Return the score around each of the response's tokens.

        Raises:
            Exception: What the guard failed with, or that the time is over.
        """
        if self.explained_by is None:
            self.explained_by = time.monotonic() + self.seconds
        left = self.explained_by - time.monotonic()
        tokens: list[TokenScore] = self.batcher.wait(lambda: self.explainer.explain(prompt, response), left)
        return tokens


class BatchedDetoxifier:
    """A detoxifier for one request: the server's own, through its batches and within a time limit."""

    def __init__(self, batcher: Batcher, seconds: float):
        """Rewrite, waiting at most so many seconds."""
        self.batcher = batcher
        self.seconds = seconds

    def rewrite(
        self,
        prompts: Sequence[str],
        responses: Sequence[str],
        batch_size: int = REWRITE_BATCH_SIZE,
        max_new_tokens: int = MAX_NEW_TOKENS,
    ) -> list[Any]:
        """Return one rewrite a response; an empty one, which is turned down, where it failed at that response alone.

        Raises:
            Exception: What the detoxifier failed with, when it failed at every response, or the time is over.
        """
        items = [(prompt, response, max_new_tokens) for prompt, response in zip(prompts, responses, strict=True)]
        outcomes = self.batcher.submit(items, self.seconds)
        find_failure(outcomes)
        return ["" if isinstance(outcome, Exception) else outcome for outcome in outcomes]


def batch_guard(guard: Guard, batcher: Batcher, seconds: float) -> BatchedGuard:
    """Return a guard as one request sees it; one that explains explains there too."""
    if isinstance(guard, ExplainingGuard):
        return ExplainingBatchedGuard(guard, batcher, seconds)
    return BatchedGuard(guard, batcher, seconds)


def find_failure(outcomes: Sequence[Any]) -> Exception | None:
    """Return the first failure of a batch's items; None when there is none.

    Raises:
        Exception: The first one, when every item failed.
    """
    errors = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    if errors and len(errors) == len(outcomes):
        raise errors[0]
    return errors[0] if errors else None


def score_items(guard: Guard, items: list[tuple[str, str]]) -> list[float]:
    """Score a batch of (response, prompt) pairs."""
    return score_responses(guard, [response for response, _ in items], [prompt for _, prompt in items])


def rewrite_items(detoxifier: Detoxifier, items: list[tuple[str, str, int]]) -> list[Any]:
    """Rewrite a batch of (prompt, response, longest rewrite), those with the same limit together."""
    rewrites: dict[int, Any] = {}
    for limit in {limit for _, _, limit in items}:
        places = [place for place, item in enumerate(items) if item[2] == limit]
        prompts, responses = [items[place][0] for place in places], [items[place][1] for place in places]
        found = detoxifier.rewrite(prompts, responses, batch_size=len(places), max_new_tokens=limit)
        if isinstance(found, str | bytes) or not isinstance(found, Sequence):
            raise TypeError(f"{type(found).__name__} instead of a list of {len(places)} rewrites")
        rewrites.update(zip(places, found, strict=True))
    return [rewrites[place] for place in range(len(items))]
