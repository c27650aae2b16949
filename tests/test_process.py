import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(("world", "code"), [("1", 0), ("2", 0), ("2", 2)])
def test_a_process_ends_with_its_code_and_its_exit_handlers(world, code):
    program = (
        "import atexit, sys; from llava.process import end_process\n"
        "atexit.register(print, 'handler'); sys.stdout.write('last words '); sys.stderr.write('and errors')\n"
        f"end_process({code})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "WORLD_SIZE": world},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stdout) == (code, "last words handler\n")
    assert done.stderr.endswith("and errors")
