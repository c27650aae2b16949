"""One thread that works for many requests: their items share batches, each request in its turn."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import TimeoutError as FutureTimeoutError  # another class before Python 3.11
from typing import Any

from llava.serve.errors import GuardStoppedError, GuardTimeoutError

logger = logging.getLogger(__name__)
Outcome = Any
"""What became of one item: its result, or the exception that it ended with."""


class Job:
    """The items of one request, or one call that is made between batches."""

    def __init__(self, items: Sequence[Any], call: Callable[[], Any] | None = None):
        """Take the items; of a call there is one, which stands for it."""
        self.items = list(items)
        self.call = call
        self.outcomes: list[Outcome] = [None] * len(self.items)
        self.begun = 0
        self.missing = len(self.items)
        self.dropped = False
        self.future: Future[list[Outcome]] = Future()

    def settle(self, place: int, outcome: Outcome) -> None:
        """Take what became of an item, and hand all over with the last."""
        self.outcomes[place] = outcome
        self.missing -= 1
        if not self.missing:
            self._end(lambda: self.future.set_result(self.outcomes))

    def fail(self, error: Exception) -> None:
        """End the job with an error."""
        self._end(lambda: self.future.set_exception(error))

    def _end(self, tell: Callable[[], None]) -> None:
        """Tell who waits, where somebody still does."""
        try:
            tell()
        except InvalidStateError:
            logger.debug("a job ended after its time was over")


class Batcher:
    """Runs items of many requests in common batches, in one thread.

    Requests take turns: each gives one item a round, so a request of one item is in the next batch however many items
    another one has waiting. A batch that fails is run again item by item, so that what is wrong with one text is not
    what becomes of the others; this also halves the memory that a pass needs.
    """

    def __init__(
        self,
        name: str,
        run: Callable[[list[Any]], Sequence[Any]],
        batch_size: int,
        watch: Callable[[int, float], None] = lambda items, seconds: None,
    ):
        """Start the thread.

        Args:
            name: Of the thread, and for messages.
            run: Takes a batch of items and returns one result for each.
            batch_size: Most items in a batch.
            watch: Told the size of each batch and how long it took.
        """
        self.name = name
        self.run = run
        self.batch_size = batch_size
        self.watch = watch
        self.jobs: deque[Job] = deque()
        self.changed = threading.Condition()
        self.stopped = False
        self.busy_since: float | None = None
        self.thread = threading.Thread(target=self._work, name=name, daemon=True)
        self.thread.start()

    def submit(self, items: Sequence[Any], seconds: float) -> list[Outcome]:
        """Wait until all items are done, and return what became of each: a result, or an exception.

        Args:
            items: What `run` takes.
            seconds: How long to wait; then the items that have not begun are dropped.

        Raises:
            GuardTimeoutError: When the time is over.
            GuardStoppedError: When the thread has been told to end.
        """
        if not items:
            return []
        job = Job(items)
        if seconds <= 0:
            raise self._drop(job)
        self._queue(job)
        try:
            return job.future.result(timeout=seconds)
        except FutureTimeoutError:
            raise self._drop(job) from None

    def wait(self, function: Callable[[], Any], seconds: float) -> Any:
        """Call a function between two batches, in its turn, and return its result; for those who wait in a thread.

        Raises:
            GuardTimeoutError: When the time is over; the call may still be running then.
            GuardStoppedError: When the thread has been told to end.
            Exception: Whatever the function raises.
        """
        job = Job([None], function)
        if seconds <= 0:
            raise self._drop(job)
        self._queue(job)
        try:
            (outcome,) = job.future.result(timeout=seconds)
        except FutureTimeoutError:
            raise self._drop(job) from None
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    async def call(self, function: Callable[[], Any], seconds: float) -> Any:
        """Call a function between two batches, in its turn, and return its result.

        Raises:
            GuardTimeoutError: When the time is over; the call may still be running then.
            GuardStoppedError: When the thread has been told to end.
            Exception: Whatever the function raises.
        """
        job = Job([None], function)
        self._queue(job)
        try:
            (outcome,) = await asyncio.wait_for(asyncio.wrap_future(job.future), seconds)
        except (asyncio.TimeoutError, TimeoutError):  # two classes before Python 3.11
            raise self._drop(job) from None
        except asyncio.CancelledError:
            job.dropped = True
            raise
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def _queue(self, job: Job) -> None:
        """Put a job into the queue."""
        with self.changed:
            if self.stopped:
                raise GuardStoppedError(f"the {self.name} takes no more work; the server is ending")
            self.jobs.append(job)
            self.changed.notify()

    def _drop(self, job: Job) -> GuardTimeoutError:
        """Take back what has not begun of a job whose time is over, and return the error that says so."""
        job.dropped = True
        return GuardTimeoutError(f"the {self.name} did not answer in time")

    def stuck_for(self) -> float:
        """Return for how many seconds the thread has been at its present batch."""
        since = self.busy_since
        return 0.0 if since is None else time.monotonic() - since

    def count_waiting(self) -> int:
        """Return how many items wait."""
        with self.changed:
            return sum(len(job.items) - job.begun for job in self.jobs if not job.dropped)

    def stop(self) -> None:
        """End the thread after its present batch; whoever still waits gets an error."""
        with self.changed:
            self.stopped = True
            self.changed.notify()

    def join(self, seconds: float) -> bool:
        """Wait for the thread to end after `stop`; return whether it has."""
        self.thread.join(seconds)
        return not self.thread.is_alive()

    def _work(self) -> None:
        """Run batches until told to end."""
        while True:
            with self.changed:
                while not self.jobs and not self.stopped:
                    self.changed.wait()
                if self.stopped:
                    waiting, self.jobs = list(self.jobs), deque()
                    break
                batch = self._take_batch()
            if batch:
                self._run_batch(batch)
        for job in waiting:
            job.fail(GuardStoppedError(f"the {self.name} has ended"))

    def _take_batch(self) -> list[tuple[Job, int]]:
        """Take the next items, one from each request in turn; a call is a batch of its own."""
        batch: list[tuple[Job, int]] = []
        while self.jobs and len(batch) < self.batch_size:
            job = self.jobs.popleft()
            if job.dropped:
                continue
            if job.call and batch:
                self.jobs.appendleft(job)
                break
            batch.append((job, job.begun))
            job.begun += 1
            if job.call:
                break
            if job.begun < len(job.items):
                self.jobs.append(job)
        return batch

    def _run_batch(self, batch: list[tuple[Job, int]]) -> None:
        """Run a batch and hand its results to the requests that they belong to."""
        begun = self.busy_since = time.monotonic()
        for (job, place), outcome in zip(batch, self._find_outcomes(batch), strict=True):
            job.settle(place, outcome)
        self.busy_since = None
        self.watch(len(batch), time.monotonic() - begun)

    def _find_outcomes(self, batch: list[tuple[Job, int]]) -> list[Outcome]:
        """Return what became of each item of a batch."""
        job, _ = batch[0]
        try:
            if job.call:
                return [job.call()]
            results = self.run([job.items[place] for job, place in batch])
            if len(results) != len(batch):
                raise ValueError(f"{len(results)} results for {len(batch)} texts")
            return list(results)
        except Exception as error:  # noqa: BLE001 - whatever it is, it must reach those who wait, and the thread must go on
            release_memory(error)
            if len(batch) == 1:
                return [error]
            logger.warning("the %s failed at %d texts (%s); each is tried alone", self.name, len(batch), type(error))
        return [outcome for item in batch for outcome in self._find_outcomes([item])]


def release_memory(error: Exception) -> None:
    """Give cached memory of an accelerator back after it ran out, so that the next pass finds some."""
    if type(error).__name__ == "OutOfMemoryError":
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()
