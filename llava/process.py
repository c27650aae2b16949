"""How a command ends: its error in one line, its exit code, and threads which nobody waits for."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from llava.errors import FailedRunError, InputError
from llava.files import describe_os_error

BAD_INPUT, FAILED = 2, 1
"""Exit codes: what the user gave cannot be used; the input was fine and the run failed all the same."""


def describe_failure(error: Exception) -> tuple[str, int] | None:
    """Return the line and the exit code of an error that a user can do something about; None for a defect.

    Bad input and failed runs say what is wrong themselves. The last net is for the operating system: a full disk, a
    folder that was made read-only in between.
    """
    if isinstance(error, InputError):
        return str(error), BAD_INPUT
    line = str(error) if isinstance(error, FailedRunError) else describe_os_error(error)
    return None if line is None else (line, FAILED)


def report_errors(command: Callable[[], object]) -> int:
    """Run what a command does, and turn an error that a user can do something about into one line on stderr.

    Args:
        command: Does the work; what it returns is left aside.

    Returns:
        Exit code: 0 done, 1 failed, 2 bad input.
    """
    try:
        command()
    except Exception as error:
        failure = describe_failure(error)
        if failure is None:
            raise
        line, code = failure
        print(f"error: {line}", file=sys.stderr)
        return code
    return 0


def end_process(code: int) -> NoReturn:
    """End the process of a command with its exit code.

    Threads of gloo and DeepSpeed may outlive the process group, above all where a training was broken off. One that
    wants the interpreter while that is ending aborts the process ("terminate called without an active exception"), and
    the launcher calls finished work failed, or bad input a crash. So one process of several runs its exit handlers,
    flushes and is gone.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        raise SystemExit(code)
    atexit._run_exitfuncs()
    leave(code)


def leave(code: int) -> NoReturn:
    """Flush what was printed and be gone, whatever threads still run."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
