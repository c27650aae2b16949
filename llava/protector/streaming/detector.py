"""Scores of a growing response from the detector itself, each token read once."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from llava.model.tokenizers import hold_tokenizer
from llava.protector.streaming.opening import Prefix
from llava.protector.streaming.windows import WindowState, pool_logits
from llava.protector.text import Window, cut_windows, list_pairs, tokenise_pair

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from llava.protector.classifier import HarmClassifier
    from llava.protector.config import ProtectorConfig

Place = tuple[int, int]
"""A window's place: the number of the reading, and the token of its response at which the window begins."""
OPEN_WINDOWS = 2
"""Windows of each reading, from the last, that still grow or may change: consecutive ones share their ends."""


class DetectorStream:
    """The score of a response while it grows; a `TokenStream`.

    After each piece the score is what `HarmDetector.score` gives for the text so far, but for rounding. The text is
    tokenised anew each time, exactly as it is there, and cut into windows; with `normalise` each reading is (its text
    without disguise, and every text that is hidden in it). Each window goes on from what it has in common with
    itself a piece before, so pieces may end anywhere. One that appears is read from its start.

    One stream belongs to one thread at a time; any number of them may share a detector.
    """

    def __init__(
        self, network: HarmClassifier, tokenizer: PreTrainedTokenizerFast, config: ProtectorConfig, prompt: str
    ):
        """Begin an empty response.

        Args:
            network: A network that can go on from a cache.
            tokenizer: Its tokenizer.
            config: How both are used.
            prompt: The question; empty when it is unknown.
        """
        self.network = network
        self.tokenizer = tokenizer
        self.config = config
        self.prompt = prompt
        self.text = ""
        self.tokens = 0
        self.states: dict[Place, WindowState] = {}

    def add(self, piece: str) -> float:
        """Take the next piece; return the harm score of all so far, NaN where there is nothing to score.

        Raises:
            Exception: What the network raises; the next call reads everything anew.
        """
        self.text += piece
        windows = self.read_windows(self.text)
        self.states = {place: self.states.get(place) or WindowState(self.network) for place in windows}
        for place, window in windows.items():
            self.states[place].follow(window.ids)
        self.close_old_windows()
        self.tokens = count_tokens(windows)
        return self.combine(windows)

    def score_prefix(self, length: int) -> Prefix | None:
        """Score the first `length` characters as a text of their own; None where it takes another pass.

        Every token that the prefix has as a text of its own must be one that was read: attention looks back only, so
        its logit is what it would be without all that follows.
        """
        windows = self.read_windows(self.text[:length])
        for place, window in windows.items():
            state = self.states.get(place)
            if state is None or state.ids[: len(window.ids)] != window.ids:
                return None
        return Prefix(self.combine(windows), count_tokens(windows))

    def read_windows(self, text: str) -> dict[Place, Window]:
        """Return every window that the detector reads of a text."""
        windows: dict[Place, Window] = {}
        with hold_tokenizer(self.tokenizer):
            for number, (question, reading) in enumerate(list_pairs(self.config, self.prompt, text)):
                pair = tokenise_pair(self.tokenizer, self.config, question, reading)
                if pair:
                    for start, window in cut_windows(pair, self.config.max_length):
                        windows[number, start] = window
        return windows

    def close_old_windows(self) -> None:
        """Give back the caches of windows that are full."""
        for number in {number for number, _ in self.states}:
            starts = sorted(start for other, start in self.states if other == number)
            for start in starts[:-OPEN_WINDOWS]:
                self.states[number, start].close()

    def combine(self, windows: dict[Place, Window]) -> float:
        """Return the highest score of windows whose tokens were read; NaN when there is none or any is not finite."""
        logits = [
            pool_logits(self.network, self.states[place].logits[: len(window.ids)], window.head)
            for place, window in windows.items()
        ]
        if not logits:
            return math.nan
        p_positive = torch.sigmoid(torch.tensor(logits, dtype=torch.float64) / self.config.temperature)
        p_harmful = p_positive if self.config.positive_label == "harmful" else 1.0 - p_positive
        return p_harmful.amax().item()  # NaN wins


def count_tokens(windows: dict[Place, Window]) -> int:
    """Return how many tokens the response itself has, from its windows.

    Example:
        >>> windows = {(0, 0): Window([1, 5, 6, 7], head=1), (0, 2): Window([1, 7, 8, 9], head=1), (1, 0): Window([4])}
        >>> count_tokens(windows)
        5
    """
    ends = [start + len(window.ids) - window.head for (number, start), window in windows.items() if number == 0]
    return max(ends, default=0)
