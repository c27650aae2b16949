"""How servers differ within one protocol: parameters that some do not take, names that some lengthen."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Dialect:
    """How a server wants to be asked, where it takes not every parameter of the protocol."""

    limit: str = "max_tokens"
    """What it calls the longest answer."""
    left_out: frozenset[str] = frozenset()
    """Parameters that it does not take."""

    def render(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return a request as this server takes it."""
        return {
            self.limit if name == "max_tokens" else name: value
            for name, value in request.items()
            if name not in self.left_out
        }

    def adapt(self, words: str) -> Dialect | None:
        """Return the dialect that a server's words ask for; None when they are not about a parameter.

        Example:
            >>> Dialect().adapt("Use 'max_completion_tokens' instead.").limit
            'max_completion_tokens'
        """
        if self.limit == "max_tokens" and "max_completion_tokens" in words:
            return replace(self, limit="max_completion_tokens")
        for name in ("temperature", "seed"):
            about = re.search(rf"\b{name}\b", words) and re.search(
                r"support|permitted|unknown|unrecogni|allowed", words
            )
            if about and name not in self.left_out:
                return replace(self, left_out=self.left_out | {name})
        return None


def same_model(asked: str, listed: str) -> bool:
    """Tell whether a model that a server lists may be the one asked for; servers list some under longer names.

    Example:
        >>> same_model("tiny", "models/tiny"), same_model("llava", "llava:latest"), same_model("llava", "llava:13b")
        (True, True, False)
    """
    first, second = (name.removeprefix("models/").removesuffix(":latest").casefold() for name in (asked, listed))
    return first == second
