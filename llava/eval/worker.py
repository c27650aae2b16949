"""One process of a generation run: claim a batch, answer it, guard it, append it, until none is left.

Processes do not talk to each other. A batch belongs to whoever creates its claim file first, so a slow process does not
hold up the rest and a dead one cannot block them. Only the first batch of each share is set aside for its process.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava.data.schema import GuardResult, Question, Record
from llava.errors import InputError
from llava.eval.environment import name_device
from llava.eval.planning import Batch, derive_seed, order_for_rank, split_batch
from llava.eval.records import ShardWriter
from llava.eval.settings import GenerationSettings
from llava.files import write_json
from llava.model.endpoint import ChatClient, EndpointError, EndpointModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llava.model.generation import MultimodalModel
    from llava.protector.protector import Protector

CLAIMS_FOLDER = "claims"
INPUT_ERROR = "input"
FAILURE = "failure"


@dataclass(frozen=True)
class Job:
    """What the processes of one launch share."""

    settings: GenerationSettings
    """Settings of the run, resolved."""
    launch: str
    """Name of the launch, in shard names and claims."""
    num_processes: int
    """Processes of the launch."""
    questions: list[Question]
    """The question list."""
    pending: list[Batch]
    """Batches that lack a record."""

    @property
    def folder(self) -> Path:
        """Folder of the run."""
        return Path(self.settings.output)

    @property
    def claims(self) -> Path:
        """Folder of this launch's claims and outcomes."""
        return self.folder / CLAIMS_FOLDER / self.launch

    def to_json(self) -> str:
        """Return the JSON form, which goes to a process through its standard input."""
        return json.dumps(
            {
                "settings": self.settings.to_dict(),
                "launch": self.launch,
                "num_processes": self.num_processes,
                "questions": [question.to_dict() for question in self.questions],
                "pending": [[batch.index, list(batch.positions)] for batch in self.pending],
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Job:
        """Rebuild a job from its JSON form."""
        values = json.loads(text)
        return cls(
            settings=GenerationSettings.from_dict(values["settings"]),
            launch=values["launch"],
            num_processes=values["num_processes"],
            questions=[Question.from_dict(row) for row in values["questions"]],
            pending=[Batch(index, tuple(positions)) for index, positions in values["pending"]],
        )


@dataclass
class Outcome:
    """How one process ended; written beside the claims, read by the launcher."""

    rank: int
    """Which process."""
    records: int = 0
    """Records it wrote."""
    error: str | None = None
    """One line; None when all went well."""
    kind: str | None = None
    """`input` when the user's input is at fault, `failure` for anything else."""
    notes: list[str] = field(default_factory=list)
    """What a reader of the results must know about the model."""
    threshold: float | None = None
    """The detector's threshold in use."""
    load_seconds: float = 0.0
    """Wall time of loading the models, in seconds."""

    def write(self, job: Job) -> None:
        """Store the outcome."""
        write_json(job.claims / f"outcome-{self.rank:04d}.json", self.__dict__)


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
    except EndpointError as error:
        outcome.error, outcome.kind = str(error), FAILURE
    except Exception as error:  # noqa: BLE001 - whatever it was, the launcher must hear of it
        import traceback

        traceback.print_exc()
        outcome.error, outcome.kind = f"{type(error).__name__}: {' '.join(str(error).split())}", FAILURE
    outcome.write(job)
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

    def run(self) -> None:
        """Go through all pending batches, own share first, and answer those that nobody has claimed."""
        writer = ShardWriter(self.job.folder, self.job.launch, self.rank)
        for batch in order_for_rank(self.job.pending, self.rank, self.job.num_processes):
            if not claim(self.job.claims, batch, self.rank):
                continue
            if self.model is None:
                self.load()
            records = self.answer([self.job.questions[place] for place in batch.positions])
            writer.append(records)
            self.outcome.records += len(records)

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

    def answer(self, questions: Sequence[Question]) -> list[Record]:
        """Answer and guard a batch, in halves if need be.

        A batch that does not fit into memory is cut, always at the same place. So is one in which the protector failed:
        it withholds all its rows then, and the halves find the row that is to blame.
        """
        from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

        try:
            records = self.answer_whole(questions)
            if len(questions) == 1 or not any(has_failed(record.guard) for record in records):
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
        halves = split_batch(range(len(questions)))
        return [record for half in halves for record in self.answer([questions[place] for place in half])]

    def answer_whole(self, questions: Sequence[Question]) -> list[Record]:
        """Answer and guard questions as one batch."""
        from llava.data.images import open_image

        assert self.model is not None
        settings = self.job.settings
        prompts = [question.prompt for question in questions]
        images = [open_image(question.image) if question.image else None for question in questions]
        seeds = [derive_seed(settings.seed, question.key) for question in questions]
        start = time.perf_counter()
        responses = self.model.generate(
            prompts,
            images,
            max_new_tokens=settings.max_new_tokens,
            temperature=settings.temperature,
            seeds=seeds if settings.temperature > 0 else None,
        )
        seconds = {"generate": (time.perf_counter() - start) / len(questions)}
        guarded: Sequence[GuardResult | None] = [None] * len(questions)
        if self.protector is not None:
            start = time.perf_counter()
            guarded = self.protector.guard(prompts, responses, settings.max_new_tokens)
            seconds["guard"] = (time.perf_counter() - start) / len(questions)
        rows = zip(questions, responses, guarded, strict=True)
        return [Record(question, response, guard, dict(seconds)) for question, response, guard in rows]


def load_model(settings: GenerationSettings, device: str | None) -> MultimodalModel | EndpointModel:
    """Load the model of a run, or connect to the server that runs it."""
    if settings.endpoint is not None:
        return EndpointModel(ChatClient(settings.endpoint, settings.model), settings.concurrency)
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


def has_failed(guard: GuardResult | None) -> bool:
    """Tell whether the detector or the detoxifier raised on this response, rather than judge it."""
    return guard is not None and guard.reason is not None and "failed: " in guard.reason


def claim(folder: Path, batch: Batch, rank: int) -> bool:
    """Take a batch for a process.

    Returns:
        True when the batch is that process's now, or was set aside for it before; False when another has it.
    """
    path = folder / f"{batch.index:06d}"
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
    # Not sys.exit: the thread that waits on standard input would hold up the interpreter's end.
    os._exit(0 if outcome.error is None else 1)
