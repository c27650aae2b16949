"""A rewrite that begins to repeat itself has ended: a small model decoding greedily may go round in circles."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch

RUN = 12
"""So many tokens in a row that have stood there before are a repetition."""
SENTENCE_END = re.compile(r"""[.!?]["')\]]?(?=\s|$)""")


class StopAtRepetition:
    """Ends a row of a batch once its last `run` tokens have been written before.

    Args:
        start: Where the written tokens begin; what stands before them, the prompt, may be repeated.
        run: Length of a repetition in tokens.
    """

    def __init__(self, start: int, run: int = RUN) -> None:
        self.start, self.run = start, run

    def __call__(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Return which rows have ended, (B,) bool, for token ids (B, T)."""
        written = input_ids[:, self.start :]
        if written.shape[1] <= self.run:
            ended = torch.zeros(len(written), dtype=torch.bool, device=written.device)
        else:
            runs = written[:, :-1].unfold(1, self.run, 1)  # (B, W, run)
            ended = (runs == written[:, None, -self.run :]).all(dim=2).any(dim=1)
        return ended


def without_repetition(tokens: Sequence[int], run: int = RUN) -> tuple[Sequence[int], bool]:
    """Return the tokens before the first run of `run` tokens that have stood there before, and whether there was one.

    Example:
        >>> without_repetition([5, 6, 7, 5, 6, 8], run=2), without_repetition([5, 6, 7], run=2)
        (([5, 6, 7], True), ([5, 6, 7], False))
    """
    seen = set()
    for start in range(len(tokens) - run + 1):
        window = tuple(tokens[start : start + run])
        if window in seen:
            return tokens[:start], True
        seen.add(window)
    return tokens, False


def whole_sentences(text: str) -> str:
    """Return a text up to its last whole sentence; all of it when it has none.

    Example:
        >>> whole_sentences("I cannot help. But I am just"), whole_sentences("no end")
        ('I cannot help.', 'no end')
    """
    ends = [match.end() for match in SENTENCE_END.finditer(text)]
    return text[: ends[-1]] if ends else text
