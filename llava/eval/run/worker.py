"""One process of a generation run: claim a batch, answer it, guard it, append it, until none is left.

With an endpoint, the questions of claimed batches go through a sliding window of requests instead, and each record is
appended as its answer comes in.

Processes do not talk to each other. A batch belongs to whoever creates its claim file first, so a slow process does not
hold up the rest and a dead one cannot block them. Only the first batch of each share is set aside for its process.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from llava.data.schema import Question, Record
from llava.errors import FailedRunError, InputError
from llava.eval.run.answering import Answerer, describe_missing
from llava.eval.run.claims import claim
from llava.eval.run.environment import name_device
from llava.eval.run.job import FAILURE, FULL_DISK_STATUS, INPUT_ERROR, Job, LaunchedJob, Outcome, locate_outcome
from llava.eval.run.planning import order_for_rank
from llava.eval.run.records import ShardWriter
from llava.model.answering.replies import Answer
from llava.model.answering.window import map_window

AnyJob = TypeVar("AnyJob", bound=LaunchedJob)


def run_worker(job: Job, rank: int, local_rank: int | None = None) -> Outcome:
    """Answer batches until none is left, and store how it went.

    Args:
        job: The launch.
        rank: Number of this process in the launch.
        local_rank: Number of this process on its machine, which picks its accelerator; None means `rank`.

    Returns:
        The outcome. Errors are in it, not raised, so that one process's failure does not hide another's work.
    """

    def work(outcome: Outcome) -> None:
        Worker(job, rank, rank if local_rank is None else local_rank, outcome).run()

    return settle(job, rank, work)


def settle(job: LaunchedJob, rank: int, work: Callable[[Outcome], None]) -> Outcome:
    """Do the work of one process, and store and return how it went; errors are in the outcome, not raised."""
    outcome = Outcome(rank)
    try:
        with limit_threads(job.threads):
            work(outcome)
    except InputError as error:
        outcome.error, outcome.kind = str(error), INPUT_ERROR
    except FailedRunError as error:
        outcome.error, outcome.kind = str(error), FAILURE
    except Exception as error:  # noqa: BLE001 - whatever it was, the launcher must hear of it
        import traceback

        traceback.print_exc()
        outcome.error, outcome.kind = f"{type(error).__name__}: {' '.join(str(error).split())}", FAILURE
    try:
        outcome.write(job)
    except (InputError, FailedRunError) as error:
        # Most often the disk is full, and the outcome holds that error already.
        outcome.error, outcome.kind = outcome.error or str(error), outcome.kind or FAILURE
    return outcome


class Worker:
    """Answers batches of a job; the models are loaded with the first claim."""

    def __init__(self, job: Job, rank: int, local_rank: int, outcome: Outcome):
        """Take the job; nothing is loaded yet."""
        self.job = job
        self.rank = rank
        self.local_rank = local_rank
        self.outcome = outcome
        self.answerer: Answerer | None = None
        self.writer = ShardWriter(job.folder, job.launch, rank)

    def run(self) -> None:
        """Go through all pending batches, own share first, and answer those that nobody has claimed."""
        if self.job.settings.endpoint is not None:
            self.ask_endpoint()
            return
        for questions in self.claim_batches():
            self.store(self.loaded.answer(questions))

    @property
    def loaded(self) -> Answerer:
        """The models, which are there once a batch was claimed."""
        assert self.answerer is not None
        return self.answerer

    def ask(self, question: Question, ended: threading.Event) -> Answer:
        """Ask the endpoint one question."""
        return self.loaded.ask(question, ended)

    def claim_batches(self) -> Iterator[list[Question]]:
        """Yield the questions of one batch after another as this process claims it."""
        for batch in order_for_rank(self.job.pending, self.rank, self.job.num_processes):
            if claim(self.job.claims, batch, self.rank):
                if self.answerer is None:
                    self.load()
                yield [self.job.questions[place] for place in batch.positions]

    def store(self, records: Sequence[Record]) -> None:
        """Append records and count them."""
        self.writer.append(records)
        self.outcome.records += len(records)

    def ask_endpoint(self) -> None:
        """Keep the window full of requests, and guard and store what has come in; an error loses no answer."""
        questions = (question for batch in self.claim_batches() for question in batch)
        asked: list[tuple[Question, Answer]] = []
        start = time.perf_counter()
        try:
            for group in map_window(self.ask, questions, self.job.settings.concurrency):
                seconds = (time.perf_counter() - start) / len(group)
                records = self.loaded.answer([question for question, _ in group], [answer.text for _, answer in group])
                self.store(
                    [
                        replace(
                            record,
                            seconds={**record.seconds, "generate": seconds},
                            refusal=answer.refusal,
                            unanswered=answer.unanswered,
                        )
                        for record, (_, answer) in zip(records, group, strict=True)
                    ]
                )
                asked += group
                start = time.perf_counter()
        finally:
            if self.answerer is not None:
                self.outcome.notes += [*describe_missing(asked), *self.answerer.describe_server()]

    def load(self) -> None:
        """Load the models."""
        start = time.perf_counter()
        self.answerer = Answerer(self.job.settings, name_device(self.job.settings, self.local_rank))
        self.outcome.notes = list(self.answerer.model.notes)
        if self.answerer.protector is not None:
            self.outcome.threshold = self.answerer.protector.threshold
        self.outcome.load_seconds = time.perf_counter() - start


@contextlib.contextmanager
def limit_threads(threads: int | None) -> Iterator[None]:
    """Let torch use so many CPU threads inside the block; None changes nothing."""
    if threads is None:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        # A worker may run in the process of whoever called the library.
        torch.set_num_threads(before)


def follow_parent(stream: Any) -> None:
    """End this process at once when the launcher is gone: its end of the pipe closes, even after kill -9."""

    def wait_for_end() -> None:
        stream.read()
        os._exit(1)

    threading.Thread(target=wait_for_end, daemon=True).start()


def main() -> None:
    """Run as a child of the launcher."""
    serve_launcher(Job.from_json, run_worker)


def serve_launcher(read: Callable[[str], AnyJob], work: Callable[[AnyJob, int], Outcome]) -> None:
    """Do a child's share: the job is the first line of standard input, the rank the only argument. Ends the process.

    Args:
        read: Makes a job of that line.
        work: Does the share of a rank, and stores how it went.
    """
    job = read(sys.stdin.readline())
    follow_parent(sys.stdin)
    outcome = work(job, int(sys.argv[1]))
    sys.stderr.flush()
    stored = locate_outcome(job, outcome.rank).exists()
    # Not sys.exit: the thread that waits on standard input would hold up the interpreter's end.
    os._exit(0 if outcome.error is None else 1 if stored else FULL_DISK_STATUS)
