"""How a process ends that has threads which nobody waits for."""

from __future__ import annotations

import atexit
import os
import sys
from typing import NoReturn


def end_process(code: int) -> NoReturn:
    """End the process of a command with its exit code.

    Threads of gloo and DeepSpeed may outlive the process group. One that wants the interpreter while that is ending
    aborts the process ("terminate called without an active exception", about one run in twenty), and the launcher calls
    finished work failed. So one process of several runs its exit handlers, flushes and is gone.
    """
    if code != 0 or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        raise SystemExit(code)
    atexit._run_exitfuncs()
    leave(code)


def leave(code: int) -> NoReturn:
    """Flush what was printed and be gone, whatever threads still run."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
