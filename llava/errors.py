"""The one exception that means "the user's input is at fault"."""

from __future__ import annotations


class InputError(ValueError):
    """Report bad input: a missing file, a corrupt row, the wrong checkpoint.

    The message is one line that names the file or flag and the remedy. Commands print it to stderr
    as `error: ...` without a traceback and exit with code 2. Anything else that escapes a command is a
    defect or a failed run.
    """
