"""`detect` over files of any size: one process or many, on one machine or several, to be gone on with after a kill."""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from llava.eval.detection.job import DetectionJob
from llava.eval.detection.scores import Place, find_scores, read_scores
from llava.eval.detection.settings import DetectionSettings
from llava.eval.detection.spool import Chunk, read_chunk, write_spool
from llava.eval.detection.tables import write_rows
from llava.eval.detection.worker import run_worker
from llava.eval.run.claims import clear_claims, open_claims
from llava.eval.run.environment import count_accelerators, fix_rounding
from llava.eval.run.job import Outcome, name_launch
from llava.eval.run.launcher import Launch, raise_first_error, run_alone, run_in_world, run_processes
from llava.eval.run.layout import LOCK_FILE
from llava.eval.run.progress import show_progress
from llava.eval.run.records import list_shards
from llava.eval.run.runner import hold_lock
from llava.eval.run.world import detect_world, join_world
from llava.files import read_json, write_json
from llava.places import check_output_file
from llava.protector.jsonl import add_score, iter_responses

PLAN_FILE = "plan.json"
WORKER = "llava.eval.detection.worker"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Summary:
    """What `detect` found."""

    rows: int
    """Rows of the output."""
    flagged: int
    """How many of them are flagged."""
    seconds: float = field(default=0.0, compare=False)
    """How long the busiest process scored, in seconds, without loading."""


def run_detection(settings: DetectionSettings) -> Summary:
    """Score every row of a file and write the rows with `harm_score` and `flagged`, in their order.

    Memory does not grow with the file. Called again after it was interrupted, with the same input and guard, it scores
    what is still open; what is finished lies in a hidden folder beside the output, which goes when the output is there.

    Args:
        settings: What to do; see `DetectionSettings`.

    Returns:
        How many rows there are, and how many of them are flagged.

    Raises:
        InputError: When something cannot be used; the message names the file and line of a bad row.
        RunError: When a process failed or died. What it wrote is kept, and the same call finishes the rest.
    """
    fix_rounding()
    check_output_file(settings.output)
    world = detect_world()
    summary: Summary
    if world is None:
        summary = run_alone(prepare_launch(settings), do_all)
        return summary
    with join_world(world) as joined:
        summary = run_in_world(settings, joined, prepare_launch, run_worker)
        return summary


def do_all(job: DetectionJob) -> list[Outcome]:
    """Do a job with one process, which is this one, or with several that this one starts."""
    return [run_worker(job, 0)] if job.num_processes == 1 else run_processes(job, WORKER)


@contextlib.contextmanager
def prepare_launch(settings: DetectionSettings) -> Iterator[Launch]:
    """Read the input, and hold the folder of what is not finished inside the block."""
    with hold_folder(settings):
        job, chunks = start_launch(settings)
        yield Launch(job, lambda: follow(job, chunks), lambda outcomes: finish_launch(job, chunks, outcomes))


@contextlib.contextmanager
def hold_folder(settings: DetectionSettings) -> Iterator[None]:
    """Keep other launches out, and leave no folder behind in which no score is."""
    folder = settings.folder
    with hold_lock(folder, Path(settings.output)):
        try:
            yield
        finally:
            if not list_shards(folder):
                with contextlib.suppress(OSError):  # what ended the launch is what matters
                    empty(folder)
    with contextlib.suppress(OSError):  # it holds scores, or is gone already
        folder.rmdir()


def start_launch(settings: DetectionSettings) -> tuple[DetectionJob, list[Chunk]]:
    """Read the input, unless an earlier launch did, and return what is still to be scored, and all chunks."""
    from llava.protector.guard import check_guard, identify_guard

    folder = settings.folder
    fingerprint = describe_run(settings, identify_guard(settings.detector, settings.base).key)
    chunks = resume(folder, fingerprint)
    if chunks is None:
        check_guard(settings.detector, settings.load_options)
        chunks = write_spool(folder, iter_responses(settings.input), Path(settings.output))
        write_json(folder / PLAN_FILE, {"fingerprint": fingerprint, "chunks": [chunk.to_list() for chunk in chunks]})
    done = find_scores(folder, chunks)
    processes = settings.num_processes or count_accelerators(settings.device)
    pending = [chunk for chunk in chunks if chunk.index not in done]
    job = DetectionJob(settings, name_launch(), processes, pending)
    open_claims(job)
    return job, chunks


def describe_run(settings: DetectionSettings, detector: str) -> dict[str, Any]:
    """Return what scores depend on: a launch with other values begins anew."""
    path = Path(settings.input)
    with contextlib.suppress(OSError, ValueError):  # reading it says what is wrong
        state = path.stat()
        options = asdict(settings.load_options) | {"device": None}
        place = {"path": str(path.resolve()), "size": state.st_size, "changed": state.st_mtime_ns}
        return {"input": place, "detector": detector, "options": options, "batch_size": settings.batch_size}
    return {}


def resume(folder: Path, fingerprint: dict[str, Any]) -> list[Chunk] | None:
    """Return the chunks of an earlier launch of the same run; without one, None, and the folder is empty."""
    if (folder / PLAN_FILE).is_file():
        plan = read_json(folder / PLAN_FILE, "plan")
        if isinstance(plan, dict) and plan.get("fingerprint") == fingerprint:
            return [Chunk(*numbers) for numbers in plan["chunks"]]
        if list_shards(folder):
            logger.warning(
                "input, detector or options have changed since this was interrupted; all rows are scored anew"
            )
    empty(folder)
    return None


def empty(folder: Path) -> None:
    """Take everything out of a folder but the lock that this launch holds."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != LOCK_FILE:
            path.unlink()


def follow(job: DetectionJob, chunks: list[Chunk]) -> contextlib.AbstractContextManager[None]:
    """Show one progress bar for all processes inside the block."""
    total = sum(chunk.rows for chunk in chunks)
    done = total - sum(chunk.rows for chunk in job.pending)
    return show_progress(
        job.folder, job.launch, total=total, done=done, unit="row", label="detect", per_line=max(c.rows for c in chunks)
    )


def finish_launch(job: DetectionJob, chunks: list[Chunk], outcomes: list[Outcome]) -> Summary:
    """Write the output when every chunk has scores; raise what went wrong otherwise."""
    done = find_scores(job.folder, chunks)
    clear_claims(job.folder)
    missing = sum(chunk.rows for chunk in chunks if chunk.index not in done)
    total = sum(chunk.rows for chunk in chunks)
    raise_first_error(outcomes, missing, total)
    settings = job.settings

    flagged = 0

    def read() -> Iterator[dict[str, Any]]:
        nonlocal flagged
        flagged = 0  # a table reads twice
        for row in iter_scored(job.folder, chunks, done, settings.threshold):
            flagged += row["flagged"]
            yield row

    write_rows(settings.output, read)
    for path in list_shards(job.folder):
        path.unlink()
    return Summary(total, flagged, max((outcome.work_seconds for outcome in outcomes), default=0.0))


def iter_scored(
    folder: Path, chunks: list[Chunk], done: dict[int, Place], threshold: float | None
) -> Iterator[dict[str, Any]]:
    """Yield all rows with their scores, in the order of the input; one chunk is held at a time."""
    for chunk in chunks:
        found = read_scores(done[chunk.index], chunks)
        limit = found.threshold if threshold is None else threshold
        for row, score in zip(read_chunk(folder, chunk), found.scores, strict=True):
            yield add_score(row, score, limit)
