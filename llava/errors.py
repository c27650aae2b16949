"""The two exceptions whose message is all that the user needs: bad input, and a run that failed."""

from __future__ import annotations

import re

LONGEST_MESSAGE = 500
"""Characters of a message at most: a name from a file may be of any length, a line on a terminal may not."""
TAIL = 180
"""Characters kept of the end when a message is cut: the remedy stands there."""


def to_one_line(message: str) -> str:
    """Return a message as one printable line of at most `LONGEST_MESSAGE` characters, cut in its middle.

    Half surrogate pairs cannot be printed, and what is not printable could drive the terminal.

    Example:
        >>> to_one_line("row 3\\n is \\x1b[2Jbad")
        'row 3 is ?[2Jbad'
        >>> len(to_one_line("x" * 9000))
        500
    """
    line = " ".join(message.encode("utf-8", "replace").decode("utf-8").split())
    line = "".join(letter if letter.isprintable() else "?" for letter in line)
    if len(line) <= LONGEST_MESSAGE:
        return line
    return f"{line[: LONGEST_MESSAGE - TAIL - 3]} … {line[-TAIL:]}"


def drop_traceback(message: str) -> str:
    """Return the message of an error in a worker of a data loader, which comes with its whole traceback in front.

    Example:
        >>> drop_traceback("Caught InputError in a worker.\\nOriginal Traceback\\nllava.errors.InputError: bad row")
        'bad row'
    """
    if not message.startswith("Caught ") or "Original Traceback" not in message:
        return message
    return re.sub(r"^[\w.]+: ", "", message.strip().splitlines()[-1])


class InputError(ValueError):
    """Report bad input: a missing file, a corrupt row, the wrong checkpoint.

    The message is one line that names the file or flag and the remedy. Commands print it to stderr
    as `error: ...` without a traceback and exit with code 2. Anything else that escapes a command is a
    defect or a failed run.
    """

    def __init__(self, message: str):
        """Keep the message as one line of at most `LONGEST_MESSAGE` characters."""
        super().__init__(to_one_line(drop_traceback(message)))


class FailedRunError(RuntimeError):
    """Report a run that failed though its input was fine: a process died, a self-check did not hold.

    The message is one line. Commands print it as `error: ...` without a traceback and exit with code 1.
    """

    def __init__(self, message: str):
        """Keep the message as one line of at most `LONGEST_MESSAGE` characters."""
        super().__init__(to_one_line(drop_traceback(message)))
