"""Turning what libraries raise for a bad checkpoint into one line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from llava.errors import FailedRunError, InputError

LONGEST_REASON = 200


@contextlib.contextmanager
def explain_loading(what: str, remedy: str) -> Iterator[None]:
    """Turn any error inside the block, which calls a library with files that others wrote, into one line.

    The libraries raise whatever their first wrong step leads to: a config of a wrong type ends in a TypeError deep
    inside, a damaged pickle in a UnicodeDecodeError. Memory that does not suffice is no fault of the files.

    Args:
        what: What is loaded, the first words of the message ("model x").
        remedy: What the user can do.

    Raises:
        InputError: For every error but those of memory and our own.
    """
    import torch

    try:
        yield
    except (InputError, FailedRunError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - see above
        raise InputError(f"{what} cannot be loaded ({describe_error(error)}); {remedy}") from None


def describe_error(error: BaseException) -> str:
    """Return an error's message as one short line; its type where it says nothing, or only a word.

    Example:
        >>> describe_error(ValueError("no such\\nlayer")), describe_error(KeyError("weight_map"))
        ('no such layer', "KeyError 'weight_map'")
    """
    line = " ".join(str(error).split())
    if " " not in line:
        line = f"{type(error).__name__} {line}".strip()
    return line if len(line) <= LONGEST_REASON else f"{line[: LONGEST_REASON - 3]}..."
