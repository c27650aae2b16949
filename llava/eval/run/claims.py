"""Who answers which batch: the process that creates a batch's claim file first."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from llava.eval.run.job import LaunchedJob
from llava.eval.run.layout import CLAIMS_FOLDER
from llava.eval.run.planning import Numbered
from llava.files import explain_writing


def claim(folder: Path, batch: Numbered, rank: int) -> bool:
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


def open_claims(job: LaunchedJob) -> None:
    """Make the folder of a launch's claims, drop those of earlier launches, and give each process its first batch."""
    clear_claims(job.folder)
    with explain_writing(job.claims):
        job.claims.mkdir(parents=True)
    set_aside(job)


def clear_claims(folder: Path) -> None:
    """Drop the claims of all launches of a run, which none of them needs once it has ended."""
    shutil.rmtree(folder / CLAIMS_FOLDER, ignore_errors=True)


def set_aside(job: LaunchedJob) -> None:
    """Give each process the first batch of its share, so that one that starts late finds work too."""
    for rank, batch in enumerate(job.pending[: job.num_processes]):
        claim(job.claims, batch, rank)
