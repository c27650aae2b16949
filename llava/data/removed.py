"""What was cut out of a response, as records hold it: stretches of the original text."""

from __future__ import annotations

from typing import Any, NamedTuple

from llava.fields import Fields


class RemovedSpan(NamedTuple):
    """A stretch of a response that is not shown."""

    start: int
    """Where it begins in the response, in characters."""
    end: int
    """Where it ends."""
    text: str
    """What stands there."""

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return self._asdict()


def read_removed(items: list[Any] | None, where: str, remedy: str) -> tuple[RemovedSpan, ...] | None:
    """Return removed spans from their JSON form.

    Args:
        items: The JSON form; None stands for a response of which nothing was cut out.
        where: File and line, for messages.
        remedy: What the user can do, for messages.

    Raises:
        InputError: When one has no `start`, `end` and `text`.

    Example:
        >>> read_removed([{"start": 9, "end": 14, "text": "Harm."}], "row 1", "mend it")
        (RemovedSpan(start=9, end=14, text='Harm.'),)
    """
    if items is None:
        return None
    spans = []
    for item in items:
        fields = Fields(item, f"{where}, 'removed'", remedy)
        spans.append(RemovedSpan(fields.integer("start", least=0), fields.integer("end", least=0), fields.text("text")))
    return tuple(spans)
