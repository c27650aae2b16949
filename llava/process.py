"""How a command ends: its exit code, and a process with threads which nobody waits for."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from llava.errors import FailedRunError, InputError


def report_errors(command: Callable[[], object]) -> int:
    """Run what a script does; bad input and a failed run become one line on stderr.

    Args:
        command: Does the work; what it returns is left aside.

    Returns:
        Exit code: 0 done, 1 failed, 2 bad input.
    """
    try:
        command()
    except (FailedRunError, InputError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
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
