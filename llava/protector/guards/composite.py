"""A guard made of several: `any` of them, `all` of them, or their `mean`."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence

from llava.protector.guards.base import Guard, score_responses
from llava.protector.streaming.opening import Prefix, open_stream

MIDDLE = 0.5
"""Threshold of a combined guard, and of each member's score once it is aligned."""


class CompositeGuard:
    """Flags what any of several guards flags, what all of them do, or what they do on average.

    Guards flag at different scores, so each member's score is first moved onto a scale on which its own threshold is
    0.5, in two straight pieces (see `align_score`). `any` takes the highest score, `all` the lowest, `mean` the mean.

    A member that cannot tell makes the whole unable to tell (NaN), and such a response is withheld; unless the others
    flag it whatever that member would say: one of `any` does, or the `mean` is high enough with a 0 in its place.

    Example:
        >>> class Fixed:
        ...     name, identity = "fixed", "fixed@1"
        ...     def __init__(self, score, threshold):
        ...         self.fixed, self.threshold = score, threshold
        ...     def score(self, responses, prompts):
        ...         return [self.fixed] * len(responses)
        >>> strict, lax = Fixed(0.2, threshold=0.1), Fixed(0.2, threshold=0.8)
        >>> [round(CompositeGuard(how, [strict, lax]).score(["r"], ["p"])[0], 3) for how in ("any", "all", "mean")]
        [0.556, 0.125, 0.34]
    """

    threshold = MIDDLE

    def __init__(self, combination: str, members: Sequence[Guard]):
        """Combine guards.

        Args:
            combination: `any`, `all` or `mean`.
            members: At least one guard.

        Raises:
            ValueError: When the combination is unknown, or there is no member.
        """
        if combination not in COMBINATIONS or not members:
            raise ValueError(f"combination {combination!r} of {len(members)} guards; choose {', '.join(COMBINATIONS)}")
        self.combination = combination
        self.members = list(members)
        self.name = f"{combination}({', '.join(member.name for member in members)})"

    @property
    def key(self) -> str:
        """What tells it from another combination."""
        return combine_keys(self.combination, [key_of(member) for member in self.members])

    @property
    def identity(self) -> str:
        """What its members are, and where each of them flags."""
        return f"{self.key}@{','.join(f'{member.threshold:g}' for member in self.members)}"

    def score(self, responses: Sequence[str], prompts: Sequence[str]) -> list[float]:
        """Score responses with each member and combine the scores, (B,) in [0, 1]; NaN where it cannot tell."""
        columns = [
            [align_score(score, member.threshold) for score in score_responses(member, responses, prompts)]
            for member in self.members
        ]
        return [COMBINATIONS[self.combination](row) for row in zip(*columns, strict=True)]

    def open_stream(self, prompt: str) -> CompositeStream:
        """Begin a response that each member follows in its own way."""
        return CompositeStream(self, prompt)


class CompositeStream:
    """A response that several guards follow; a `TokenStream`."""

    def __init__(self, guard: CompositeGuard, prompt: str):
        """Begin an empty response."""
        self.guard = guard
        self.streams = [open_stream(member, prompt) for member in guard.members]

    @property
    def tokens(self) -> int:
        """Tokens of the response so far: of the member that counts fewest, so that a look-ahead is one for each."""
        return min(stream.tokens for stream in self.streams)

    def add(self, piece: str) -> float:
        """Take the next piece; return the combined score of all so far, NaN where it cannot tell."""
        return self.combine([stream.add(piece) for stream in self.streams])

    def score_prefix(self, length: int) -> Prefix | None:
        """Score the first `length` characters as a text of their own; None where a member needs another pass."""
        found = [prefix for stream in self.streams if (prefix := stream.score_prefix(length))]
        if len(found) < len(self.streams):
            return None
        return Prefix(self.combine([prefix.score for prefix in found]), max(prefix.tokens for prefix in found))

    def combine(self, scores: Sequence[float]) -> float:
        """Return one score of the members' own, one each."""
        pairs = zip(scores, self.guard.members, strict=True)
        return COMBINATIONS[self.guard.combination]([align_score(score, member.threshold) for score, member in pairs])


def align_score(score: float, threshold: float) -> float:
    """Return a score on a scale on which the threshold is 0.5: 0, threshold and 1 become 0, 0.5 and 1.

    Args:
        score: In [0, 1], or NaN, which stays.
        threshold: In (0, 1].

    Example:
        >>> align_score(0.375, 0.75), align_score(0.875, 0.75), align_score(1.0, 1.0)
        (0.25, 0.75, 1.0)
    """
    if math.isnan(score):
        return score
    if score < threshold:
        # Rounding must not lift what is just below its threshold.
        return min(MIDDLE * score / threshold, math.nextafter(MIDDLE, 0.0))
    return MIDDLE + MIDDLE * (score - threshold) / (1 - threshold) if threshold < 1 else 1.0


def combine_any(scores: Sequence[float]) -> float:
    """Return the highest of aligned scores; NaN when one is unknown and none flags.

    Example:
        >>> combine_any([0.1, 0.7, math.nan]), combine_any([0.1, math.nan])
        (0.7, nan)
    """
    highest = max((score for score in scores if not math.isnan(score)), default=math.nan)
    return highest if highest >= MIDDLE or not any(map(math.isnan, scores)) else math.nan


def combine_all(scores: Sequence[float]) -> float:
    """Return the lowest of aligned scores; NaN when one is unknown, for it may be the one that does not flag."""
    return math.nan if any(map(math.isnan, scores)) else min(scores)


def combine_mean(scores: Sequence[float]) -> float:
    """Return the mean of aligned scores; NaN when one is unknown and a 0 in its place would not flag.

    Example:
        >>> combine_mean([0.75, 0.25]), combine_mean([1.0, 0.5, 0.75, math.nan]), combine_mean([0.75, math.nan])
        (0.5, 0.5625, nan)
    """
    least = sum(score for score in scores if not math.isnan(score)) / len(scores)
    return least if least >= MIDDLE or not any(map(math.isnan, scores)) else math.nan


COMBINATIONS: dict[str, Callable[[Sequence[float]], float]] = {
    "any": combine_any,
    "all": combine_all,
    "mean": combine_mean,
}
"""Name of a combination → how aligned scores become one."""


def combine_keys(combination: str, keys: Sequence[str]) -> str:
    """Return what tells a combination of guards from another, from what tells its members."""
    return hashlib.sha256("\0".join([combination, *keys]).encode()).hexdigest()


def key_of(guard: Guard) -> str:
    """Return what a guard is, apart from how it is used."""
    return guard.identity.partition("@")[0]


def list_keys(guard: Guard) -> set[str]:
    """Return what a guard is, and what those are that it is made of."""
    members = guard.members if isinstance(guard, CompositeGuard) else []
    return {key_of(guard)}.union(*(list_keys(member) for member in members))
