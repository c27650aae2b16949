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


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            PermissionError(13, "x", "/there/f"),
            "/there/f cannot be used (Permission denied); check the path and its permissions",
        ),
        (OSError(28, "x"), "a file could not be written (No space left on device); free space on that disk"),
        (
            RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
            "a file could not be written (No space left on device); free space on that disk",
        ),
    ],
)
def test_an_error_of_the_operating_system_is_one_line(capsys, error, line):
    def fail():
        raise error

    assert report_errors(fail) == 1
    assert capsys.readouterr().err == f"error: {line}\n"


@pytest.mark.parametrize(
    "error", [ConnectionRefusedError(111, "x"), OSError("no tokenizer found"), ValueError("(os error)")]
)
def test_what_names_no_file_is_no_error_of_the_operating_system(error):
    def fail():
        raise error

    with pytest.raises(type(error)):
        report_errors(fail)
