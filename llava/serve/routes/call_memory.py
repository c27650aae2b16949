"""What is remembered of a call between two requests about it: its question, and what was let out of its answer."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

MOST_CALLS = 10_000
MOST_CHARACTERS = 64 << 20
"""Characters of all remembered texts together."""
SECONDS = 900.0
"""How long a call is remembered after the last request about it."""


@dataclass
class Answer:
    """One text of an answer, which may be growing."""

    released: str = ""
    """What was let out; everything that is let out later must go on from it."""
    stopped: bool = False
    """Whether it ended for what it says; what was let out then stays as it is."""


@dataclass
class Call:
    """One call of a model."""

    prompt: str = ""
    """What the user asked."""
    answers: dict[int, Answer] = field(default_factory=dict)
    """The texts of its answer by their place."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while a request about the call is decided, so that two of them cannot let out different texts."""
    expires: float = 0.0
    size: int = 0
    remembered: bool = False

    def measure(self) -> int:
        """Return how many characters it holds."""
        return len(self.prompt) + sum(len(answer.released) for answer in self.answers.values())


class CallMemory:
    """Remembers calls, within bounds: the one that was longest not asked about is forgotten first.

    A forgotten call is judged as a new one: without its question, and never less strictly.
    """

    def __init__(
        self,
        most_calls: int = MOST_CALLS,
        most_characters: int = MOST_CHARACTERS,
        seconds: float = SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Set the bounds."""
        self.most_calls = most_calls
        self.most_characters = most_characters
        self.seconds = seconds
        self.clock = clock
        self.calls: OrderedDict[tuple[str, str], Call] = OrderedDict()
        self.characters = 0

    def find(self, client: str, call_id: str | None) -> Call:
        """Return what is known of a call, or an empty one.

        Args:
            client: Who asks; one client's calls are not another's.
            call_id: The call; None is always a new one, and is not remembered.
        """
        self._forget_old()
        if call_id is None:
            return Call()
        key = (client, call_id)
        call = self.calls.setdefault(key, Call())
        self.calls.move_to_end(key)
        call.expires = self.clock() + self.seconds
        call.remembered = True
        self._keep_bounds()
        return call

    def keep(self, call: Call) -> None:
        """Count anew what a call holds, after it has changed, and forget others where it is too much."""
        if not call.remembered:  # or forgotten while it was decided about
            return
        change = call.measure() - call.size
        call.size += change
        self.characters += change
        self._keep_bounds()

    def _keep_bounds(self) -> None:
        """Forget calls while there are too many, or they hold too much."""
        while self.calls and (len(self.calls) > self.most_calls or self.characters > self.most_characters):
            self._forget_first()

    def _forget_old(self) -> None:
        """Forget the calls whose time is over; they stand in order of it."""
        now = self.clock()
        while self.calls and next(iter(self.calls.values())).expires < now:
            self._forget_first()

    def _forget_first(self) -> None:
        """Forget the call that was longest not asked about."""
        _, call = self.calls.popitem(last=False)
        self.characters -= call.size
        call.size = 0
        call.remembered = False
