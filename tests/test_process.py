import os
import subprocess
import sys

import pytest

from llava.errors import FailedRunError, HubError, InputError
from llava.process import report_errors


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


@pytest.mark.parametrize(("error", "code"), [(InputError, 2), (HubError, 2), (FailedRunError, 1)])
def test_what_a_user_can_mend_is_one_line(capsys, error, code):
    def fail():
        raise error("check the path")

    assert report_errors(fail) == code
    assert capsys.readouterr().err == "error: check the path\n"
    assert report_errors(lambda: None) == 0


def test_a_defect_keeps_its_traceback():
    with pytest.raises(IndexError):
        report_errors(lambda: [][0])
