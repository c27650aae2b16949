"""The exceptions whose message is all that the user needs: bad input, and a run that failed."""

from __future__ import annotations


class InputError(ValueError):
    """Report bad input: a missing file, a corrupt row, the wrong checkpoint.

    The message is one line that names the file or flag and the remedy. Commands print it to stderr
    as `error: ...` without a traceback and exit with code 2. Anything else that escapes a command is a
    defect or a failed run.
    """


class HubError(InputError):
    """Report a model or data set that is neither a local path nor to be had from the hub."""


class FailedRunError(RuntimeError):
    """Report a run that failed though its input was fine: a process died, a self-check did not hold.

    The message is one line. Commands print it as `error: ...` without a traceback and exit with code 1.
    """
