"""A stream for every guard: its own where it has one, else one that reads the text so far anew."""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol, runtime_checkable

from llava.protector.guards.base import Guard, GuardStream, StreamingGuard, read_score, score_responses

BYTES_PER_TOKEN = 5
"""Bytes of UTF-8 to a token, where a guard does not tell: English has four to five, most scripts fewer."""


class Prefix(NamedTuple):
    """The beginning of a response, scored as a text of its own."""

    score: float
    """Its harm score, or NaN."""
    tokens: int
    """Its tokens."""


@runtime_checkable
class TokenStream(GuardStream, Protocol):
    """A followed response whose length is known in the guard's own tokens."""

    @property
    def tokens(self) -> int:
        """Tokens of the response so far."""
        ...

    def score_prefix(self, length: int) -> Prefix | None:
        """Score the first `length` characters as a text of their own; None where it takes another pass."""
        ...


class RescoringStream:
    """A stream of a guard that has none: the whole text so far is scored after every piece; a `TokenStream`.

    Example:
        >>> class Counter:
        ...     name, identity, threshold = "counter", "counter@1", 0.5
        ...     def score(self, responses, prompts):
        ...         return [response.count("x") / 10 for response in responses]
        >>> stream = RescoringStream(Counter(), "Why?")
        >>> stream.add("x, "), stream.add("x and x")
        (0.1, 0.3)
    """

    def __init__(self, guard: Guard, prompt: str):
        """Begin an empty response."""
        self.guard = guard
        self.prompt = prompt
        self.text = ""

    @property
    def tokens(self) -> int:
        """Tokens of the text so far, estimated."""
        return estimate_tokens(self.text)

    def add(self, piece: str) -> float:
        """Take the next piece; return the harm score of all so far, NaN where the guard cannot tell."""
        self.text += piece
        return score_responses(self.guard, [self.text], [self.prompt])[0] if self.text.strip() else math.nan

    def score_prefix(self, length: int) -> Prefix | None:
        """Return None: each score is another pass."""
        return None


class CountedStream:
    """Somebody's own stream, its tokens estimated; a `TokenStream`."""

    def __init__(self, stream: GuardStream):
        """Wrap a stream to which nothing was added."""
        self.stream = stream
        self.text = ""

    @property
    def tokens(self) -> int:
        """Tokens of the text so far, estimated."""
        return estimate_tokens(self.text)

    def add(self, piece: str) -> float:
        """Take the next piece; return the harm score of all so far, NaN for what is none."""
        self.text += piece
        return read_score(self.stream.add(piece))

    def score_prefix(self, length: int) -> Prefix | None:
        """Return None: the stream does not look back."""
        return None


def open_stream(guard: Guard, prompt: str) -> TokenStream:
    """Begin a response in whichever way a guard can follow it.

    Args:
        guard: Any guard.
        prompt: What the response answers.
    """
    if not isinstance(guard, StreamingGuard):
        return RescoringStream(guard, prompt)
    stream = guard.open_stream(prompt)
    return stream if isinstance(stream, TokenStream) else CountedStream(stream)


def estimate_tokens(text: str) -> int:
    """Return about how many tokens a text has.

    Example:
        >>> estimate_tokens("Boil the water."), estimate_tokens("水を沸かす"), estimate_tokens("")
        (3, 3, 0)
    """
    return -(-len(text.encode("utf-8", "surrogatepass")) // BYTES_PER_TOKEN)
