"""Bounds of every number that a user gives: one table, which the command line and the Python interface share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from llava.errors import InputError
from llava.fields import describe_value

WEEK_SECONDS = 7 * 24 * 3600.0
"""Longest time limit; operating systems refuse to wait for years."""
MOST_TOKENS = 1 << 20
MOST_ROWS = 1 << 16
MOST_PROCESSES = 1024
MOST_SEED = 2**63 - 1
SMALLEST = math.ulp(0.0)
"""Smallest number above 0."""


@dataclass(frozen=True)
class Bounds:
    """What an option takes."""

    words: str
    """The same for messages, after "must be"."""
    least: float
    """Smallest value."""
    most: float
    """Largest value."""
    whole: bool = False
    """Whether it must be an integer."""
    special: float | str | None = None
    """A value outside the bounds that has a meaning of its own."""

    def holds(self, value: Any) -> bool:
        """Tell whether a value is within the bounds; true and false are no numbers, and NaN is none either."""
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            return False
        if self.special is not None and value == self.special:
            return True
        if isinstance(value, str) or (self.whole and not isinstance(value, int)):
            return False
        return self.least <= value <= self.most


def _count(most: int, hint: str = "", special: str | None = None) -> Bounds:
    """Return the bounds of a number of things."""
    return Bounds(f"an integer of at least 1{hint}, and at most {most}", 1, most, whole=True, special=special)


def _seconds() -> Bounds:
    """Return the bounds of a time limit."""
    return Bounds(f"a positive number of seconds, at most {WEEK_SECONDS:.0f}", SMALLEST, WEEK_SECONDS)


BOUNDS = {
    "batch_size": _count(MOST_ROWS, " or 'auto'", "auto"),
    "body_timeout": _seconds(),
    "concurrency": _count(MOST_PROCESSES),
    "false_positive_rate": Bounds("at least 0 and below 1", 0, math.nextafter(1, 0)),
    "guard_timeout": _seconds(),
    "limit": _count(1 << 62),
    "look_ahead": Bounds("an integer from 0 to 4096", 0, 4096, whole=True),
    "max_body_bytes": _count(1 << 32),
    "max_image_bytes": _count(1 << 32),
    "max_images": Bounds(f"an integer from 0 to {MOST_PROCESSES}", 0, MOST_PROCESSES, whole=True),
    "max_new_tokens": _count(MOST_TOKENS),
    "max_streams": _count(MOST_ROWS),
    "max_text_chars": _count(1 << 32),
    "max_texts": _count(MOST_ROWS),
    "num_processes": _count(MOST_PROCESSES),
    "port": Bounds("an integer from 0 (any free one) to 65535", 0, 65535, whole=True),
    "prices": Bounds("a number of at least 0", 0, 1e9),
    "queue_limit": _count(MOST_ROWS),
    "recall_loss": Bounds("at least 0 and below 1", 0, math.nextafter(1, 0)),
    "rate_limit": Bounds("a positive number of requests a minute, at most 1e9", SMALLEST, 1e9),
    "request_timeout": _seconds(),
    "rewrite_timeout": _seconds(),
    "seed": Bounds(f"an integer from 0 to {MOST_SEED}", 0, MOST_SEED, whole=True),
    "shutdown_timeout": _seconds(),
    # Logits are divided by it: one that is far too small makes them infinite.
    "temperature": Bounds("0 (greedy) or a positive number from 1e-05 to 1000", 1e-5, 1000, special=0),
    "threads": _count(MOST_PROCESSES),
    "threshold": Bounds("above 0 and at most 1", SMALLEST, 1),
    "tolerance": Bounds("a number of at least 0", 0, 1e9),
}
"""Name of an option, or of a setting → what it takes."""


def check_bounds(name: str, value: Any) -> Any:
    """Return a value that is within the bounds of its option.

    Args:
        name: A key of `BOUNDS`.
        value: What was given.

    Raises:
        InputError: Naming the flag and what it takes.

    Example:
        >>> check_bounds("threshold", 0.5)
        0.5
        >>> check_bounds("threshold", float("nan"))
        Traceback (most recent call last):
        llava.errors.InputError: --threshold nan must be above 0 and at most 1
    """
    bounds = BOUNDS[name]
    if not bounds.holds(value):
        shown = value if isinstance(value, str) else describe_number(value)
        raise InputError(f"{flag(name)} {shown} must be {bounds.words}")
    return value


def describe_number(value: Any) -> str:
    """Return a wrong value as a message shows it; `True` and `None` as Python has them."""
    return str(value) if isinstance(value, (bool, float, type(None))) else describe_value(value)


def flag(name: str) -> str:
    """Return the command-line flag of a setting.

    Example:
        >>> flag("max_new_tokens")
        '--max-new-tokens'
    """
    return "--" + name.replace("_", "-")
