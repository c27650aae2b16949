"""Sharded, resumable generation: a benchmark's questions in, `records.jsonl` out."""

from __future__ import annotations

import contextlib
import datetime
import logging
import secrets
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from llava.errors import FailedRunError, InputError
from llava.eval.run.claims import set_aside
from llava.eval.run.environment import fix_rounding
from llava.eval.run.job import Job, Outcome
from llava.eval.run.launcher import (
    RunError,
    raise_first_error,
    read_outcome,
    run_here,
    run_processes,
)
from llava.eval.run.layout import CLAIMS_FOLDER, LOCK_FILE, RECORDS_FILE, RUN_FILE
from llava.eval.run.planning import select_pending
from llava.eval.run.preparation import Plan, prepare_run
from llava.eval.run.progress import show_progress
from llava.eval.run.records import list_shards, merge_records, read_rows
from llava.eval.run.settings import GenerationSettings
from llava.eval.run.worker import run_worker
from llava.eval.run.world import JoinedWorld, detect_world, join_world
from llava.files import explain_writing, write_json

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
    if world is None:
        return run_alone(settings, in_this_process=rounding_is_fixed)
    with join_world(world) as joined:
        return run_in_world(settings, joined)


def run_alone(settings: GenerationSettings, *, in_this_process: bool) -> Path:
    """Run with one process, or with several that this one starts.

    Args:
        settings: Settings of the run.
        in_this_process: Whether one process may be this one; otherwise it is started too.
    """
    plan = prepare_run(settings)
    for warning in plan.warnings:
        logger.warning(warning)
    with hold_lock(plan.folder):
        job = start_launch(plan)
        if job.pending:
            with follow(job):
                outcomes = run_here(job) if in_this_process and job.num_processes == 1 else run_processes(job)
        else:
            outcomes = []
        return finish_launch(plan, job, outcomes)


def run_in_world(settings: GenerationSettings, world: JoinedWorld) -> Path:
    """Run in the processes that torchrun or accelerate started; the first one prepares and finishes for all."""
    if settings.num_processes not in (None, world.size):
        raise InputError(
            f"--num-processes {settings.num_processes} but {world.size} processes were started; leave the flag out"
        )
    settings = replace(settings, num_processes=world.size)
    if world.rank > 0:
        job: Job = receive(world)
        run_worker(job, world.rank, world.local_rank)
        world.wait()
        return receive(world)
    with contextlib.ExitStack() as stack:
        with announce(world):
            plan = prepare_run(settings)
            for warning in plan.warnings:
                logger.warning(warning)
            stack.enter_context(hold_lock(plan.folder))
            job = start_launch(plan)
        world.share((job, None))
        # The bar stays until the last process is done: this one may have to wait for the others.
        with follow(job):
            run_worker(job, world.rank, world.local_rank)
            world.wait()
        with announce(world):
            path = finish_launch(plan, job, [read_outcome(job, rank) for rank in range(world.size)])
        world.share((path, None))
        return path


def follow(job: Job) -> contextlib.AbstractContextManager[None]:
    """Show one progress bar for all processes of a launch inside the block; none where nothing is open."""
    if not job.pending:
        return contextlib.nullcontext()
    total = len(job.questions)
    return show_progress(
        job.folder, job.launch, total=total, done=total - sum(len(batch.positions) for batch in job.pending)
    )


@contextlib.contextmanager
def announce(world: JoinedWorld) -> Iterator[None]:
    """Tell the other processes of an error in this one, so that all end with it instead of waiting."""
    try:
        yield
    except (InputError, FailedRunError) as error:
        world.share((None, error))
        raise


def receive(world: JoinedWorld) -> Any:
    """Return what the first process shares, or raise what it raised."""
    value, error = world.share(None)
    if error is not None:
        raise error
    return value


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
    launch = f"{datetime.datetime.now(datetime.timezone.utc):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
    assert plan.settings.num_processes is not None
    job = Job(plan.settings, launch, plan.settings.num_processes, plan.questions, pending)
    if pending:
        if not (plan.folder / RUN_FILE).exists():
            write_json(plan.folder / RUN_FILE, plan.description)
        shutil.rmtree(plan.folder / CLAIMS_FOLDER, ignore_errors=True)
        with explain_writing(job.claims):
            job.claims.mkdir(parents=True)
        set_aside(job)
    plan.description["launches"].append({"id": launch, "started": time.time(), "num_processes": job.num_processes})
    return job


def finish_launch(plan: Plan, job: Job, outcomes: list[Outcome]) -> Path:
    """Merge what the processes wrote, note how the launch went, and raise its error if it had one.

    Without room for the note on a full disk, the launch's own error still counts first.
    """
    unwritten: FailedRunError | None = None
    missing = merge_records(plan.folder, plan.questions)
    shutil.rmtree(plan.folder / CLAIMS_FOLDER, ignore_errors=True)
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
