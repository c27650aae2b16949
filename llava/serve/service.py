"""The guard as all routes ask it: common batches, time limits, and nothing that passes because something failed."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from llava.data.schema import Action, GuardFailure, GuardResult
from llava.protector.protector import DETECTOR, DETOXIFIER, Protector, as_text, describe_failure, has_words
from llava.serve.audit import write_decision
from llava.serve.batching import Batcher
from llava.serve.errors import BROKEN, ApiError, BusyError, OverloadedError
from llava.serve.metrics import Metrics
from llava.serve.parts import BatchedDetoxifier, batch_guard, rewrite_items, score_items
from llava.serve.settings import REWRITE, Rule, ServerSettings
from llava.serve.streams import GuardedStream, pass_unjudged

WAITERS = 64
"""Threads in which requests wait for their batches."""
RETRY_SECONDS = 2.0
"""What a client that is turned away is told to wait at least."""


class GuardService:
    """Judges texts for all routes.

    A text without a judgement (an error, no finite score, no answer in time, memory that ran out) is withheld. With
    `fail_open` it passes and is counted apart; one that was flagged never does.
    """

    def __init__(self, protector: Protector, settings: ServerSettings | None = None, metrics: Metrics | None = None):
        """Start the two threads that do the work.

        Args:
            protector: Detector and detoxifier, loaded.
            settings: The server's settings; None stands for the defaults.
            metrics: Where to count; None counts for itself.
        """
        self.protector = protector
        self.settings = settings or ServerSettings()
        self.metrics = metrics or Metrics()
        detector, detoxifier = protector.detector, protector.detoxifier
        self.detector = Batcher(
            DETECTOR, functools.partial(score_items, detector), self.settings.batch_size, self._watch(DETECTOR)
        )
        self.detoxifier = (
            Batcher(DETOXIFIER, functools.partial(rewrite_items, detoxifier), 8, self._watch(DETOXIFIER))
            if detoxifier is not None
            else None
        )
        self.waiters = ThreadPoolExecutor(WAITERS, thread_name_prefix="guard")
        self.pending = 0
        self.open_streams = 0
        self.stopping = False

    async def guard(
        self,
        prompts: Sequence[str],
        responses: Sequence[str],
        *,
        threshold: float | None = None,
        route: str,
        model: str | None = None,
        rewrite: bool = True,
        unseen: Sequence[str] = (),
        max_new_tokens: int | None = None,
    ) -> list[GuardResult]:
        """Guard responses, as `Protector.guard` does.

        Args:
            prompts: What the model was asked, one for each response; empty where it is unknown.
            responses: What it answered.
            threshold: What the request asks for, already allowed; None takes what holds for route and model.
            route: The path of the route that asks.
            model: The model that the request names.
            rewrite: Whether a flagged response is trimmed or rewritten, where the rule says so; routes that only judge
                say no.
            unseen: What came with the request and is not looked at (`image`), for the audit line.
            max_new_tokens: Longest rewrite; None takes the settings'.

        Returns:
            One result a response, in order. Its `failure` says what failed, where it is no judgement; then the text is
            withheld, or with `fail_open` passed.

        Raises:
            BusyError: When too many texts wait.
            ApiError: When a text is too long to be judged, or the server is ending.
        """
        rule = self.find_rule(route, model, threshold)
        longest = self.settings.max_text_chars
        if any(isinstance(response, str) and len(response) > longest for response in responses):
            self.metrics.turned_away.labels("text").inc()
            raise ApiError(413, f"a text of more than {longest:,} characters is not judged", code="text_too_long")
        prompts = [as_text(prompt)[:longest] for prompt in prompts]
        try:
            with self.hold_places(len(responses)):
                results = await self._guard(prompts, responses, rule, rewrite, max_new_tokens)
        except BusyError:
            if not self.settings.fail_open:
                raise
            overload = describe_failure(DETECTOR, OverloadedError("too many texts wait for the guard"))
            results = [pass_unjudged(response, overload) for response in responses]
        for index, (prompt, result) in enumerate(zip(prompts, results, strict=True)):
            self.record(result, route, model, rule, prompt=prompt, unseen=unseen, index=index)
        return results

    async def score(
        self,
        prompts: Sequence[str],
        responses: Sequence[str],
        *,
        route: str,
        model: str | None = None,
        unseen: Sequence[str] = (),
    ) -> list[float]:
        """Return the harm score of each response; NaN where the guard could not tell, which counts as harmful.

        Raises:
            BusyError: When too many texts wait.
        """
        results = await self.guard(prompts, responses, route=route, model=model, rewrite=False, unseen=unseen)
        return [math.nan if result.harm_score is None else result.harm_score for result in results]

    async def open_stream(
        self,
        prompt: str,
        *,
        threshold: float | None = None,
        route: str,
        model: str | None = None,
        unseen: Sequence[str] = (),
    ) -> GuardedStream:
        """Begin to guard a response while it is written; close the stream when done with it.

        Args:
            prompt: What the model was asked.
            threshold: As for `guard`.
            route: As for `guard`.
            model: As for `guard`.
            unseen: As for `guard`.

        Raises:
            BusyError: When too many streams are open.
        """
        if self.open_streams >= self.settings.max_streams:
            self.metrics.turned_away.labels("streams").inc()
            raise BusyError(f"{self.open_streams} streams are under way; come back later", RETRY_SECONDS)
        prompt = as_text(prompt)[: self.settings.max_text_chars]
        stream = GuardedStream(self, prompt, self.find_rule(route, model, threshold), route, model, unseen)
        self.count_streams(1)
        try:
            await stream.open()
        except BaseException:  # whoever asked has gone
            stream.close()
            raise
        return stream

    def find_rule(self, route: str, model: str | None, threshold: float | None = None) -> Rule:
        """Return threshold and action for a request, the threshold always as a number."""
        rule = self.settings.find_rule(route, model, threshold)
        return rule if rule.threshold is not None else replace(rule, threshold=self.protector.threshold)

    def is_ready(self) -> bool:
        """Tell whether the guard takes work: not told to end, and at no batch longer than a text may take."""
        limits = [(self.detector, self.settings.guard_timeout), (self.detoxifier, self.settings.rewrite_timeout)]
        return not self.stopping and all(part is None or part.stuck_for() < limit for part, limit in limits)

    def stop(self) -> None:
        """Take no more work; whoever still waits is told so, and their texts are withheld."""
        self.stopping = True
        self.detector.stop()
        if self.detoxifier:
            self.detoxifier.stop()
        self.waiters.shutdown(wait=False, cancel_futures=True)

    def join(self, seconds: float) -> bool:
        """Wait for the threads to end after `stop`; return whether they have."""
        return self.detector.join(seconds) and (self.detoxifier is None or self.detoxifier.join(seconds))

    @contextmanager
    def hold_places(self, count: int) -> Iterator[None]:
        """Hold places in the queue for the texts of a request.

        Raises:
            BusyError: When there are not enough left.
            ApiError: When the server is ending.
        """
        if self.stopping:
            raise ApiError(503, "the server is ending", kind=BROKEN, code="ending", headers={"Retry-After": "5"})
        if self.pending and self.pending + count > self.settings.queue_limit:
            self.metrics.turned_away.labels("queue").inc()
            raise BusyError(f"{self.pending} texts wait for the guard; come back later", RETRY_SECONDS)
        self.pending += count
        self.metrics.pending.set(self.pending)
        try:
            yield
        finally:
            self.pending -= count
            self.metrics.pending.set(self.pending)

    def count_streams(self, change: int) -> None:
        """Count a stream that begins or ends."""
        self.open_streams += change
        self.metrics.streams.set(self.open_streams)

    def build_protector(self, rule: Rule, rewrite: bool = True, trim: bool = True) -> Protector:
        """Return a protector for one request, whose parts work through the common batches."""
        writer: Any = None
        rewrite = rewrite and rule.action == REWRITE
        if rewrite and self.detoxifier is not None:
            writer = BatchedDetoxifier(self.detoxifier, self.settings.rewrite_timeout)
        guard = batch_guard(self.protector.detector, self.detector, self.settings.guard_timeout)
        return Protector(guard, writer, rule.threshold, trim=rewrite and trim and self.settings.trim)

    async def run_waiting(self, function: Any, *arguments: Any) -> Any:
        """Run what waits for a batch in a thread of its own."""
        context = contextvars.copy_context()  # log lines name the request
        return await asyncio.get_running_loop().run_in_executor(self.waiters, context.run, function, *arguments)

    async def _guard(
        self, prompts: Sequence[str], responses: Sequence[str], rule: Rule, rewrite: bool, limit: int | None
    ) -> list[GuardResult]:
        """Guard responses within the time limit, and say of each that has no score what failed."""
        protector = self.build_protector(rule, rewrite)
        found = await self.run_waiting(protector.guard, prompts, responses, limit or self.settings.max_new_tokens)
        guard: Any = protector.detector
        return [self._close(result, guard.failed) for result in found]

    def _close(self, result: GuardResult, failed: Exception | None) -> GuardResult:
        """Name what failed where there is no score, and let the text pass only where the operator said so."""
        if result.harm_score is not None or not has_words(result.original_text):
            return result
        failure = result.failure or (
            describe_failure(DETECTOR, failed) if failed else GuardFailure(DETECTOR, "NoScore", "no finite harm score")
        )
        if self.settings.fail_open:
            return pass_unjudged(result.original_text, failure)
        return replace(result, failure=failure)

    def record(
        self,
        result: GuardResult,
        route: str,
        model: str | None,
        rule: Rule,
        *,
        prompt: str = "",
        unseen: Sequence[str] = (),
        index: int = 0,
    ) -> None:
        """Count a decision and write its audit line."""
        failed_open = is_failed_open(result)
        self.metrics.decisions.labels(route, "failed_open" if failed_open else result.action.value).inc()
        if result.harm_score is not None:
            self.metrics.scores.observe(result.harm_score)
        if result.failure:
            self.metrics.failures.labels(result.failure.part, result.failure.error).inc()
        if failed_open:
            self.metrics.failed_open.labels(route).inc()
        assert rule.threshold is not None
        write_decision(
            result,
            route=route,
            model=model,
            threshold=rule.threshold,
            inspected=list_inspected(result, prompt),
            unseen=unseen,
            failed_open=failed_open,
            log_text=self.settings.log_text,
            index=index,
        )

    def _watch(self, part: str) -> Any:
        """Return what is told of each batch of a part."""

        def watch(items: int, seconds: float) -> None:
            self.metrics.batches.labels(part).observe(items)
            self.metrics.batch_seconds.labels(part).observe(seconds)

        return watch


def is_failed_open(result: GuardResult) -> bool:
    """Tell whether a text passed although it was not judged."""
    return result.action is Action.PASSED and result.failure is not None


def list_inspected(result: GuardResult, prompt: str) -> list[str]:
    """Return what the guard read for a decision: nothing where it failed."""
    if result.harm_score is None:
        return []
    return ["response", "prompt"] if prompt else ["response"]
