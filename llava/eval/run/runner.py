"""Sharded, resumable generation: a benchmark's questions in, `records.jsonl` out."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from pathlib import Path

from llava.errors import FailedRunError, InputError
from llava.eval.run.claims import clear_claims, open_claims
from llava.eval.run.environment import fix_rounding
from llava.eval.run.fingerprint import read_run
from llava.eval.run.job import Job, Outcome, name_launch
from llava.eval.run.launcher import Launch, RunError, raise_first_error, run_alone, run_in_world, run_processes
from llava.eval.run.layout import LOCK_FILE, RECORDS_FILE, RUN_FILE
from llava.eval.run.planning import select_pending
from llava.eval.run.preparation import Plan, prepare_run
from llava.eval.run.progress import show_progress
from llava.eval.run.records import list_shards, merge_records, read_rows
from llava.eval.run.settings import GenerationSettings
from llava.eval.run.worker import run_worker
from llava.eval.run.world import detect_world, join_world
from llava.files import write_json

__all__ = ["GenerationSettings", "RunError", "run_generation"]

LOCK_SECONDS = 20.0

logger = logging.getLogger(__name__)


def run_generation(settings: GenerationSettings) -> Path:
    """Ask a model all questions of a benchmark, guard its answers, and write one record for each.

    Called again on the same output it answers what is still open and nothing else. Greedy answers do not depend on the
    number of processes, nor on how often the run was interrupted; sampled ones neither, since each question has a seed
    of its own.

    Args:
        settings: What to run; see `GenerationSettings`.

    Returns:
        Path of `records.jsonl`, in the benchmark's question order.

    Raises:
        InputError: When something in the settings cannot be used; nothing is written then.
        RunError: When a process failed or died. What it wrote is kept, and the same call finishes the rest.
    """
    rounding_is_fixed = fix_rounding()
    world = detect_world()
    path: Path
    if world is None:
        path = run_alone(prepare_launch(settings), lambda job: do_all(job, in_this_process=rounding_is_fixed))
        return path
    with join_world(world) as joined:
        path = run_in_world(settings, joined, prepare_launch, run_worker)
        return path


def do_all(job: Job, *, in_this_process: bool) -> list[Outcome]:
    """Do a job with one process, or with several that this one starts.

    Args:
        job: What they share.
        in_this_process: Whether one process may be this one; otherwise it is started too.
    """
    return [run_worker(job, 0)] if in_this_process and job.num_processes == 1 else run_processes(job)


@contextlib.contextmanager
def prepare_launch(settings: GenerationSettings) -> Iterator[Launch]:
    """Look at all that a run needs, and hold its folder inside the block."""
    plan = prepare_run(settings)
    with hold_lock(plan.folder):
        if read_run(plan.folder) not in (None, plan.description):
            # Another launch wrote there since; what it did may be all that is asked, or a run with other settings.
            plan = prepare_run(settings)
        for warning in plan.warnings:
            logger.warning(warning)
        job = start_launch(plan)
        yield Launch(job, lambda: follow(job), lambda outcomes: finish_launch(plan, job, outcomes))


def follow(job: Job) -> contextlib.AbstractContextManager[None]:
    """Show one progress bar for all processes of a launch inside the block; none where nothing is open."""
    if not job.pending:
        return contextlib.nullcontext()
    total = len(job.questions)
    return show_progress(
        job.folder, job.launch, total=total, done=total - sum(len(batch.positions) for batch in job.pending)
    )


@contextlib.contextmanager
def hold_lock(folder: Path, output: Path | None = None) -> Iterator[None]:
    """Keep other launches out of `folder`; the lock goes with the process, however it ends.

    Args:
        folder: Folder of the run.
        output: What the user knows it by; None stands for the folder itself.
    """
    shown = f"--output {output or folder}"
    from filelock import FileLock, Timeout

    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK_FILE)
        lock.acquire(timeout=LOCK_SECONDS)
    except Timeout:
        raise InputError(f"another run is writing to {shown}; wait for it or give another place") from None
    except OSError as error:
        raise InputError(f"{shown} cannot be written ({error.strerror}); give another place") from None
    try:
        yield
    finally:
        lock.release()
        if [path.name for path in folder.iterdir()] == [LOCK_FILE]:
            # The run failed before its first record: leave the place as it was.
            (folder / LOCK_FILE).unlink(missing_ok=True)
            if is_new:
                folder.rmdir()


def start_launch(plan: Plan) -> Job:
    """Write `run.json`, make the claims folder, and return what is still to be done."""
    whole = plan.settings.endpoint is None
    pending = select_pending(plan.batches, plan.questions, set(read_rows(plan.folder)), whole=whole)
    launch = name_launch()
    assert plan.settings.num_processes is not None
    job = Job(plan.settings, launch, plan.settings.num_processes, plan.questions, pending)
    if pending:
        if not (plan.folder / RUN_FILE).exists():
            write_json(plan.folder / RUN_FILE, plan.description)
        open_claims(job)
    plan.description["launches"].append({"id": launch, "started": time.time(), "num_processes": job.num_processes})
    return job


def finish_launch(plan: Plan, job: Job, outcomes: list[Outcome]) -> Path:
    """Merge what the processes wrote, note how the launch went, and raise its error if it had one.

    Without room for the note on a full disk, the launch's own error still counts first.
    """
    unwritten: FailedRunError | None = None
    missing = merge_records(plan.folder, plan.questions)
    clear_claims(plan.folder)
    if job.pending and not any(outcome.records for outcome in outcomes) and not list_shards(plan.folder) and missing:
        # Nothing was answered: without `run.json` the user may change any setting and try again.
        (plan.folder / RUN_FILE).unlink(missing_ok=True)
    elif job.pending:
        describe_launch(plan, outcomes)
        try:
            write_json(plan.folder / RUN_FILE, plan.description)
        except FailedRunError as error:
            unwritten = error
    raise_first_error(outcomes, len(missing), len(plan.questions))
    if unwritten is not None:
        raise unwritten
    return plan.folder / RECORDS_FILE


def describe_launch(plan: Plan, outcomes: list[Outcome]) -> None:
    """Add what this launch learnt to the content of `run.json`."""
    description = plan.description
    notes = [*description.get("model_notes", []), *(note for outcome in outcomes for note in outcome.notes)]
    description["model_notes"] = list(dict.fromkeys(notes))
    thresholds = [outcome.threshold for outcome in outcomes if outcome.threshold is not None]
    if thresholds:
        description["threshold"] = thresholds[0]
    launch = description["launches"][-1]
    launch["seconds"] = round(time.time() - launch["started"], 3)
    launch["load_seconds"] = round(max((outcome.load_seconds for outcome in outcomes), default=0.0), 3)
    launch["records_by_process"] = [outcome.records for outcome in outcomes]
