"""One process of a generation run: claim a batch, answer it, guard it, append it, until none is left.

With an endpoint, the questions of claimed batches go through a sliding window of requests instead, and each record is
appended as its answer comes in.

Processes do not talk to each other. A batch belongs to whoever creates its claim file first, so a slow process does not
hold up the rest and a dead one cannot block them. Only the first batch of each share is set aside for its process.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava.data.schema import GuardResult, Question, Record
from llava.errors import FailedRunError, InputError
from llava.eval.run.environment import name_device
from llava.eval.run.job import FAILURE, FULL_DISK_STATUS, INPUT_ERROR, Job, Outcome, locate_outcome
from llava.eval.run.planning import Batch, derive_seed, order_for_rank, split_batch
from llava.eval.run.records import ShardWriter
from llava.eval.run.settings import GenerationSettings
from llava.files import explain_writing
from llava.model.answering.client import Answer, ChatClient
from llava.model.answering.endpoint import EndpointModel
from llava.model.answering.window import map_window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llava.model.answering.generation import MultimodalModel
    from llava.protector.protector import Protector

FAILED_GUARD = re.compile(r"^(?:rewrite turned down: )?(?:detector|detoxifier) failed: (\w+)")
"""Reason of a guard result when a part of the protector raised; group 1 is the type of the error."""
DEVICE_ERRORS = {"OutOfMemoryError", "AcceleratorError", "RuntimeError", "MemoryError"}
"""What torch raises when a device has no memory left or fails; anything else is the text's own fault."""


def run_worker(job: Job, rank: int, local_rank: int | None = None) -> Outcome:
    """Answer batches until none is left, and store how it went.

    Args:
        job: The launch.
        rank: Number of this process in the launch.
        local_rank: Number of this process on its machine, which picks its accelerator; None means `rank`.

    Returns:
        The outcome. Errors are in it, not raised, so that one process's failure does not hide another's work.
    """
    outcome = Outcome(rank)
    try:
        Worker(job, rank, rank if local_rank is None else local_rank, outcome).run()
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
        self.model: MultimodalModel | EndpointModel | None = None
        self.protector: Protector | None = None
        self.writer = ShardWriter(job.folder, job.launch, rank)

    def run(self) -> None:
        """Go through all pending batches, own share first, and answer those that nobody has claimed."""
        if self.job.settings.endpoint is not None:
            self.ask_endpoint()
            return
        for questions in self.claim_batches():
            self.store(self.answer(questions))

    def claim_batches(self) -> Iterator[list[Question]]:
        """Yield the questions of one batch after another as this process claims it."""
        for batch in order_for_rank(self.job.pending, self.rank, self.job.num_processes):
            if claim(self.job.claims, batch, self.rank):
                if self.model is None:
                    self.load()
                yield [self.job.questions[place] for place in batch.positions]

    def store(self, records: Sequence[Record]) -> None:
        """Append records and count them."""
        self.writer.append(records)
        self.outcome.records += len(records)

    def ask_endpoint(self) -> None:
        """Keep the window full of requests, and guard and store what has come in; an error loses no answer."""
        questions = (question for batch in self.claim_batches() for question in batch)
        refused: list[tuple[Question, str]] = []
        start = time.perf_counter()
        try:
            for group in map_window(self.ask_question, questions, self.job.settings.concurrency):
                seconds = (time.perf_counter() - start) / len(group)
                records = self.answer([question for question, _ in group], [answer.text for _, answer in group])
                self.store(
                    [
                        note_refusal(replace(record, seconds={**record.seconds, "generate": seconds}), answer)
                        for record, (_, answer) in zip(records, group, strict=True)
                    ]
                )
                refused += [(question, answer.refusal) for question, answer in group if answer.refusal]
                start = time.perf_counter()
        finally:
            if refused:
                question, reason = refused[0]
                name = "/".join(question.key)
                self.outcome.notes.append(
                    f"{len(refused)} questions were turned down and have an empty response, first {name} ({reason})"
                )

    def ask_question(self, question: Question, ended: threading.Event) -> Answer:
        """Ask the endpoint one question."""
        from llava.data.images import open_image

        assert isinstance(self.model, EndpointModel)
        settings = self.job.settings
        return self.model.answer(
            question.prompt,
            open_image(question.image) if question.image else None,
            max_new_tokens=settings.max_new_tokens,
            temperature=settings.temperature,
            seed=derive_seed(settings.seed, question.key) if settings.temperature > 0 else None,
            ended=ended,
        )

    def load(self) -> None:
        """Load the model, and the protector where the run has one."""
        import torch

        settings = self.job.settings
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        start = time.perf_counter()
        device = name_device(settings, self.local_rank)
        self.model = load_model(settings, device)
        self.outcome.notes = list(self.model.notes)
        if settings.detector is not None:
            from llava.protector.protector import Protector

            self.protector = Protector.from_pretrained(
                settings.detector, settings.detoxifier, settings.threshold, device=device, dtype=settings.dtype
            )
            self.outcome.threshold = self.protector.threshold
        self.outcome.load_seconds = time.perf_counter() - start

    def answer(self, questions: Sequence[Question], responses: Sequence[str] | None = None) -> list[Record]:
        """Answer and guard a batch, in halves if need be.

        A batch that does not fit into memory is cut, always at the same place. So is one in which the protector failed:
        it withholds all its rows then, and the halves find the row that is to blame.

        Args:
            questions: What to answer.
            responses: Answers that are there already, which are only guarded.

        Raises:
            InputError: When a single question does not fit into memory.
            FailedRunError: When the device of the protector fails at a single row. A record that says withheld would
                be final, and another launch could do better.
        """
        from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

        try:
            records = self.answer_whole(questions, responses)
            errors = [name for record in records if (name := find_failure(record.guard)) is not None]
            if not errors:
                return records
            if len(questions) == 1:
                check_device(records[0], errors[0])
                return records
        except Exception as error:
            if not should_reduce_batch_size(error):
                raise
            if len(questions) == 1:
                raise InputError(
                    f"question {'/'.join(questions[0].key)} alone does not fit into memory; "
                    "try --load-in-4bit, a smaller --max-new-tokens or a larger device"
                ) from None
        clear_device_cache(garbage_collection=True)
        return [
            record
            for half in split_batch(range(len(questions)))
            for record in self.answer(
                [questions[place] for place in half], responses and [responses[place] for place in half]
            )
        ]

    def answer_whole(self, questions: Sequence[Question], responses: Sequence[str] | None = None) -> list[Record]:
        """Answer and guard questions as one batch."""
        seconds: dict[str, float] = {}
        if responses is None:
            start = time.perf_counter()
            responses = self.generate(questions)
            seconds["generate"] = (time.perf_counter() - start) / len(questions)
        guarded: Sequence[GuardResult | None] = [None] * len(questions)
        if self.protector is not None:
            start = time.perf_counter()
            prompts = [question.prompt for question in questions]
            # A device that holds the model's rows holds as many of the detoxifier's.
            guarded = self.protector.guard(
                prompts, responses, self.job.settings.max_new_tokens, batch_size=len(questions)
            )
            seconds["guard"] = (time.perf_counter() - start) / len(questions)
        rows = zip(questions, responses, guarded, strict=True)
        return [Record(question, response, guard, dict(seconds)) for question, response, guard in rows]

    def generate(self, questions: Sequence[Question]) -> list[str]:
        """Answer questions as one batch."""
        from llava.data.images import open_image

        assert self.model is not None
        settings = self.job.settings
        seeds = [derive_seed(settings.seed, question.key) for question in questions]
        return self.model.generate(
            [question.prompt for question in questions],
            [open_image(question.image) if question.image else None for question in questions],
            max_new_tokens=settings.max_new_tokens,
            temperature=settings.temperature,
            seeds=seeds if settings.temperature > 0 else None,
        )


def load_model(settings: GenerationSettings, device: str | None) -> MultimodalModel | EndpointModel:
    """Load the model of a run, or connect to the server that runs it."""
    if settings.endpoint is not None:
        client = ChatClient(settings.endpoint, settings.model, timeout=settings.request_timeout)
        return EndpointModel(client, settings.concurrency)
    from llava.model.loading import load_mllm

    return load_mllm(
        settings.model,
        device=device,
        dtype=settings.dtype,
        attn_implementation=settings.attn_implementation,
        load_in_8bit=settings.load_in_8bit,
        load_in_4bit=settings.load_in_4bit,
        trust_remote_code=settings.trust_remote_code,
    )


def find_failure(guard: GuardResult | None) -> str | None:
    """Return the type of the error that the detector or the detoxifier raised on this response; None without one."""
    failure = FAILED_GUARD.match((guard and guard.reason) or "")
    return failure.group(1) if failure else None


def check_device(record: Record, error: str) -> None:
    """Raise when it was the device, and not the text, at which the protector failed.

    Args:
        record: The record of the response.
        error: Type of the error that was raised.

    Raises:
        FailedRunError: Naming the question.
    """
    assert record.guard is not None
    if error in DEVICE_ERRORS:
        raise FailedRunError(
            f"could not guard question {'/'.join(record.key)} ({record.guard.reason}); free memory on the device, "
            "or give another --device"
        )


def note_refusal(record: Record, answer: Answer) -> Record:
    """Return a record that says why it has no response, where the guard's reason has room for it."""
    if answer.refusal is None or record.guard is None:
        return record
    return replace(record, guard=replace(record.guard, reason=answer.refusal))


def claim(folder: Path, batch: Batch, rank: int) -> bool:
    """Take a batch for a process.

    Returns:
        True when the batch is that process's now, or was set aside for it before; False when another has it.
    """
    path = folder / f"{batch.index:06d}"
    with explain_writing(path):
        try:
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileExistsError:
            return path.read_text() == str(rank)
        with os.fdopen(handle, "w") as stream:
            stream.write(str(rank))
    return True


def set_aside(job: Job) -> None:
    """Give each process the first batch of its share, so that one that starts late finds work too."""
    for rank, batch in enumerate(job.pending[: job.num_processes]):
        claim(job.claims, batch, rank)


def follow_parent(stream: Any) -> None:
    """End this process at once when the launcher is gone: its end of the pipe closes, even after kill -9."""

    def wait_for_end() -> None:
        stream.read()
        os._exit(1)

    threading.Thread(target=wait_for_end, daemon=True).start()


def main() -> None:
    """Run as a child of the launcher: the job is the first line of standard input, the rank the only argument."""
    job = Job.from_json(sys.stdin.readline())
    follow_parent(sys.stdin)
    outcome = run_worker(job, int(sys.argv[1]))
    sys.stderr.flush()
    stored = locate_outcome(job, outcome.rank).exists()
    # Not sys.exit: the thread that waits on standard input would hold up the interpreter's end.
    os._exit(0 if outcome.error is None else 1 if stored else FULL_DISK_STATUS)
