"""What the processes of one launch share, and what each leaves behind: messages between launcher and workers."""

from __future__ import annotations

import datetime
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from llava.data.schema import Question
from llava.eval.run.layout import CLAIMS_FOLDER
from llava.eval.run.planning import Batch, Numbered
from llava.eval.run.settings import GenerationSettings
from llava.fields import Fields
from llava.files import read_json, write_json

INPUT_ERROR = "input"
FAILURE = "failure"
FULL_DISK_STATUS = 74
"""Exit status of a process that has no room to say how it ended (EX_IOERR of sysexits.h)."""


def name_launch() -> str:
    """Return a name for a launch that begins now; no other one has it."""
    return f"{datetime.datetime.now(datetime.timezone.utc):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"


class LaunchedJob(Protocol):
    """What launcher, claims and outcomes need to know of a job, whatever its work is."""

    @property
    def launch(self) -> str:
        """Name of the launch, in shard names and claims."""
        ...

    @property
    def folder(self) -> Path:
        """Folder of what is not finished."""
        ...

    @property
    def num_processes(self) -> int:
        """Processes of the launch."""
        ...

    @property
    def threads(self) -> int | None:
        """CPU threads of one process; None shares the cores among the processes."""
        ...

    @property
    def claims(self) -> Path:
        """Folder of this launch's claims and outcomes."""
        ...

    @property
    def pending(self) -> Sequence[Numbered]:
        """Pieces of work that are still to be done."""
        ...

    def to_json(self) -> str:
        """Return the JSON form, which goes to a process through its standard input."""
        ...


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
    def threads(self) -> int | None:
        """CPU threads of one process."""
        return self.settings.threads

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
    work_seconds: float = 0.0
    """Wall time from then on, in seconds; 0 where nobody asks for it."""

    def write(self, job: LaunchedJob) -> None:
        """Store the outcome.

        Raises:
            FailedRunError: When the disk is full.
        """
        write_json(locate_outcome(job, self.rank), self.__dict__)


def locate_outcome(job: LaunchedJob, rank: int) -> Path:
    """Return where a process leaves its outcome."""
    return job.claims / f"outcome-{rank:04d}.json"


def load_outcome(path: Path) -> Outcome:
    """Read what a process left.

    Raises:
        InputError: When the file cannot be read, or a field is of another type.
    """
    fields = Fields(read_json(path, "outcome file"), f"outcome file {path}", "run again")
    return Outcome(
        rank=fields.integer("rank", least=0),
        records=fields.integer("records", least=0),
        error=fields.text("error", None),
        kind=fields.text("kind", None, choices=(INPUT_ERROR, FAILURE)),
        notes=fields.texts("notes"),
        threshold=fields.number("threshold", None, least=0, most=1),
        load_seconds=fields.number("load_seconds", least=0),
        work_seconds=fields.number("work_seconds", 0.0, least=0),
    )
