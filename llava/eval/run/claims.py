"""Who answers which batch: the process that creates a batch's claim file first."""

from __future__ import annotations

import os
from pathlib import Path

from llava.eval.run.job import LaunchedJob
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


def set_aside(job: LaunchedJob) -> None:
    """Give each process the first batch of its share, so that one that starts late finds work too."""
    for rank, batch in enumerate(job.pending[: job.num_processes]):
        claim(job.claims, batch, rank)
