"""Run a job in this process, in several processes that this one starts, or in those that torchrun started.

Started processes share nothing but files, so one that dies leaves no other waiting. Their standard input is the
launcher's lifeline to them: it carries the job, and its end tells them that the launcher is gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from llava.errors import FailedRunError, InputError
from llava.eval.run.environment import ROUNDING, ROUNDING_VARIABLE, count_cores
from llava.eval.run.job import FAILURE, FULL_DISK_STATUS, LaunchedJob, Outcome, load_outcome, locate_outcome
from llava.eval.run.world import JoinedWorld

# The child looks for modules where the launcher does: `python -m` would look in the current folder first, where a user
# may well keep a folder named `llava`.
BOOTSTRAP = "import json, sys; sys.path[:] = json.loads(sys.argv.pop()); from {module} import main; main()"
WORKER = "llava.eval.run.worker"


class RunError(FailedRunError):
    """A run that did not finish although its input was good; its records so far are kept."""


STDERR = 2
"""The process's own; `sys.stderr` may be an object without a descriptor, as in a notebook."""


@dataclass(frozen=True)
class Launch:
    """A launch that is prepared: what its processes share, and what the first one does beside their work."""

    job: LaunchedJob
    """What they share."""
    follow: Callable[[], contextlib.AbstractContextManager[None]]
    """Shows the progress of all inside a block."""
    finish: Callable[[list[Outcome]], Any]
    """Puts together what they wrote and returns the result; raises the launch's error."""


def run_processes(job: LaunchedJob, module: str = WORKER) -> list[Outcome]:
    """Start the processes of a job, wait for all, and return how each ended.

    A process that fails or is killed does not stop the others: they finish what they can.

    Args:
        job: What they share.
        module: Whose `main` they run.
    """
    environment = os.environ | {"TOKENIZERS_PARALLELISM": os.environ.get("TOKENIZERS_PARALLELISM", "false")}
    threads = job.threads or max(1, count_cores() // job.num_processes)
    environment.setdefault("OMP_NUM_THREADS", str(threads))
    environment.setdefault(ROUNDING_VARIABLE, ROUNDING)
    text = job.to_json() + "\n"
    children: list[subprocess.Popen[str]] = []
    try:
        for rank in range(job.num_processes):
            child = subprocess.Popen(
                [sys.executable, "-c", BOOTSTRAP.format(module=module), str(rank), json.dumps(sys.path)],
                stdin=subprocess.PIPE,
                stdout=STDERR,  # results go to files, and stdout is the command's own
                text=True,
                env=environment | {"LOCAL_RANK": str(rank)},
                # Out of the terminal's group: Ctrl-C reaches the launcher alone, which then lets go of all.
                start_new_session=True,
            )
            children.append(child)
            assert child.stdin is not None
            # A child that died at once shows in its exit status below.
            with contextlib.suppress(BrokenPipeError):
                child.stdin.write(text)
                child.stdin.flush()
        for child in children:
            child.wait()
    finally:
        for child in children:
            if child.stdin is not None:
                with contextlib.suppress(BrokenPipeError):
                    child.stdin.close()
        for child in children:
            child.wait()
    return [read_outcome(job, rank, child.returncode) for rank, child in enumerate(children)]


def run_alone(prepared: contextlib.AbstractContextManager[Launch], work: Callable[[Any], list[Outcome]]) -> Any:
    """Run a launch whose processes nobody else started.

    Args:
        prepared: The launch, inside a block.
        work: Does all of a job, here or in processes that it starts; not asked where nothing is open.

    Returns:
        What the launch's `finish` gives.
    """
    with prepared as launch:
        outcomes: list[Outcome] = []
        if launch.job.pending:
            with launch.follow():
                outcomes = work(launch.job)
        return launch.finish(outcomes)


def run_in_world(
    settings: Any,
    world: JoinedWorld,
    prepare: Callable[[Any], contextlib.AbstractContextManager[Launch]],
    work: Callable[[Any, int, int], object],
) -> Any:
    """Run in the processes that torchrun or accelerate started; the first one prepares and finishes for all.

    Args:
        settings: Settings of the run, with `num_processes`.
        world: The processes.
        prepare: Prepares a launch by the settings and holds its folder inside a block.
        work: Does a process's part of a job, given its number and its number on its machine.

    Returns:
        What the launch's `finish` gives, in every process.

    Raises:
        InputError: When the settings name another number of processes, or what the launch raises, in every process.
    """
    if settings.num_processes not in (None, world.size):
        raise InputError(
            f"--num-processes {settings.num_processes} but {world.size} processes were started; leave the flag out"
        )
    settings = replace(settings, num_processes=world.size)
    if world.rank > 0:
        work(_receive(world), world.rank, world.local_rank)
        world.wait()
        return _receive(world)
    with contextlib.ExitStack() as stack:
        with _announce(world):
            launch = stack.enter_context(prepare(settings))
        world.share((launch.job, None))
        # The bar stays until the last process is done: this one may have to wait for the others.
        with launch.follow():
            work(launch.job, world.rank, world.local_rank)
            world.wait()
        with _announce(world):
            result = launch.finish([read_outcome(launch.job, rank) for rank in range(world.size)])
        world.share((result, None))
        return result


@contextlib.contextmanager
def _announce(world: JoinedWorld) -> Iterator[None]:
    """Tell the other processes of an error in this one, so that all end with it instead of waiting."""
    try:
        yield
    except (InputError, FailedRunError) as error:
        world.share((None, error))
        raise


def _receive(world: JoinedWorld) -> Any:
    """Return what the first process shares, or raise what it raised."""
    value, error = world.share(None)
    if error is not None:
        raise error
    return value


def read_outcome(job: LaunchedJob, rank: int, returncode: int | None = None) -> Outcome:
    """Return how a process ended, from the file it left or, without one, from its exit status."""
    path = locate_outcome(job, rank)
    if path.exists():
        return load_outcome(path)
    if returncode == FULL_DISK_STATUS:
        how = "could not write its records or its outcome; free space on the disk of --output"
    elif returncode is not None and returncode < 0:
        how = f"was killed by {signal.Signals(-returncode).name}"
    else:
        how = f"ended with status {returncode}" if returncode is not None else "left no outcome"
    return Outcome(rank, error=how, kind=FAILURE)


def raise_first_error(outcomes: list[Outcome], missing: int, total: int) -> None:
    """Raise the error of a launch, if it had one or left questions without a record.

    Raises:
        InputError: When the user's input was at fault in any process.
        RunError: On any other failure.
    """
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    for outcome in failed:
        if outcome.kind != FAILURE:
            raise InputError(str(outcome.error))
    if failed or missing:
        first = f"process {failed[0].rank} {failed[0].error}" if failed else "some batches were not answered"
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        raise RunError(
            f"{first}{more}; {total - missing} of {total} records are kept, run the same command again for the rest"
        )
