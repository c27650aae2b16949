"""The exceptions whose message is all that the user needs: bad input, and a run that failed."""

from __future__ import annotations

import re

LONGEST_MESSAGE = 500
"""Characters of a message at most: a name from a file may be of any length, a line on a terminal may not."""
TAIL = 180
"""Characters kept of the end when a message is cut: the remedy stands there."""


def hide_credentials(text: str) -> str:
    """Return a text without the user information of the addresses in it: what stands between `://` and the last `@`.

    Example:
        >>> hide_credentials("chat:m@http://me:secret@host/v1 is down")
        'chat:m@http://host/v1 is down'
    """

    def hide(found: re.Match[str]) -> str:
        word = found.group()
        start, end = word.find("://"), word.rfind("@")
        return word[: start + 3] + word[end + 1 :] if 0 <= start < end else word

    return re.sub(r"\S+", hide, text)


def to_one_line(message: str) -> str:
    """Return a message as one printable line of at most `LONGEST_MESSAGE` characters, cut in its middle.

    User information of addresses is left out. Half surrogate pairs cannot be printed, and what is not printable
    could drive the terminal.

    Example:
        >>> to_one_line("row 3\\n is \\x1b[2Jbad")
        'row 3 is ?[2Jbad'
        >>> len(to_one_line("x" * 9000))
        500
    """
    line = " ".join(message.encode("utf-8", "replace").decode("utf-8").split())
    line = "".join(letter if letter.isprintable() else "?" for letter in line)
    line = hide_credentials(line)
    if len(line) <= LONGEST_MESSAGE:
        return line
    return f"{line[: LONGEST_MESSAGE - TAIL - 3]} … {line[-TAIL:]}"


def first_line(error: BaseException) -> str:
    """Return the first line of another library's message, or the kind of the error where it says nothing.

    Example:
        >>> first_line(RuntimeError("no such device\\nat line 3"))
        'no such device'
        >>> first_line(AssertionError())
        'AssertionError'
    """
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def take_last_words(message: str) -> str:
    """Return a message without the traceback in front of it that another process's error comes with.

    Example:
        >>> take_last_words("In worker 0. Traceback … llava.errors.InputError: image a.png is damaged")
        'image a.png is damaged'
    """
    return message.rpartition(f"{__name__}.InputError: ")[2]


class InputError(ValueError):
    """Report bad input: a missing file, a corrupt row, the wrong checkpoint.

    The message is one line that names the file or flag and the remedy. Commands print it to stderr
    as `error: ...` without a traceback and exit with code 2. Anything else that escapes a command is a
    defect or a failed run.
    """

    def __init__(self, message: str):
        """Keep the message as one line of at most `LONGEST_MESSAGE` characters."""
        super().__init__(to_one_line(take_last_words(message)))


class HubError(InputError):
    """Report a model or data set that is neither a local path nor to be had from the hub."""


class FailedRunError(RuntimeError):
    """Report a run that failed though its input was fine: a process died, a self-check did not hold.

    The message is one line. Commands print it as `error: ...` without a traceback and exit with code 1.
    """

    def __init__(self, message: str):
        """Keep the message as one line of at most `LONGEST_MESSAGE` characters."""
        super().__init__(to_one_line(message))
