"""Scores of a guard, kept on disk as they come, so that a run that was killed goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llava.errors import FailedRunError
from llava.eval.run.records import append_lines, parse_shard
from llava.fields import Fields
from llava.files import explain_reading, write_bytes_atomic
from llava.model.options import LoadOptions
from llava.protector.guards.base import Guard, MalformedScoresError, score_responses
from llava.protector.guards.composite import CompositeGuard

FOLDER = "scores"
CHUNK = 64
"""Responses between two writes: no more than those is scored again after a kill."""
WARM_UP = ("This is a sentence.", "Why?")
"""Scored before the clock starts: the first call of a network is slower than others."""


class ScoreBook:
    """Harm scores of one guard by question and answer, and how long they took."""

    def __init__(self, folder: Path, guard: Guard, options: LoadOptions):
        """Open the scores of a guard in a folder; those of another guard, or other numbers, are other files.

        Raises:
            InputError: When the file is there and is none of ours.
        """
        self.guard = guard
        kind = [guard.identity, options.dtype, options.load_in_8bit, options.load_in_4bit]
        self.path = folder / FOLDER / f"{hashlib.sha256(json.dumps(kind).encode()).hexdigest()[:16]}.jsonl"
        self.known: dict[str, tuple[float, float]] = {}
        if self.path.exists():
            self._read()

    def _read(self) -> None:
        """Read what former runs have scored; a last line that was cut short goes."""
        with explain_reading("scores", self.path):
            content = self.path.read_bytes()
        for number, row in enumerate(parse_shard(content, self.path), start=1):
            fields = Fields(row, f"{self.path} line {number}", "delete that file and run again")
            score = fields.number("harm_score", None, least=0, most=1)
            self.known[fields.text("key")] = (
                math.nan if score is None else score,
                fields.number("seconds", least=0),
            )
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            # Nothing may be appended behind half a line.
            write_bytes_atomic(self.path, whole)

    def score(self, prompts: Sequence[str], responses: Sequence[str], label: str = "score") -> list[float]:
        """Return the harm score of each response, NaN where the guard cannot tell; new ones are scored and written.

        Args:
            prompts: The questions, one each.
            responses: What is scored.
            label: What the progress bar says.

        Raises:
            FailedRunError: When the guard does not return scores, or the disk is full.
        """
        from tqdm import tqdm

        keys = [key_of_pair(prompt, response) for prompt, response in zip(prompts, responses, strict=True)]
        todo = {key: place for place, key in reversed(list(enumerate(keys))) if key not in self.known}
        # Alike in length within a chunk: little padding, and a time for each row that means something.
        places = sorted(todo.values(), key=lambda place: len(responses[place]))
        if places:
            self._score_now([WARM_UP[0]], [WARM_UP[1]])
        with tqdm(total=len(places), desc=label, unit="response", disable=None) as bar:
            for start in range(0, len(places), CHUNK):
                chunk = places[start : start + CHUNK]
                begun = time.perf_counter()
                found = self._score_now([responses[place] for place in chunk], [prompts[place] for place in chunk])
                seconds = round((time.perf_counter() - begun) / len(chunk), 6)
                rows: list[dict[str, Any]] = []
                for place, score in zip(chunk, found, strict=True):
                    self.known[keys[place]] = (score, seconds)
                    shown = None if math.isnan(score) else score
                    rows.append({"key": keys[place], "harm_score": shown, "seconds": seconds})
                append_lines(self.path, rows)
                bar.update(len(chunk))
        return [self.known[key][0] for key in keys]

    def _score_now(self, responses: list[str], prompts: list[str]) -> list[float]:
        """Return what the guard says."""
        try:
            return score_responses(self.guard, responses, prompts)
        except MalformedScoresError as error:
            raise FailedRunError(f"guard {self.guard.name} returned {error}") from None

    def seconds_of(self, prompts: Sequence[str], responses: Sequence[str]) -> float:
        """Return the mean seconds of a response among those that have been scored."""
        keys = [key_of_pair(prompt, response) for prompt, response in zip(prompts, responses, strict=True)]
        return sum(self.known[key][1] for key in keys) / len(keys) if keys else math.nan


def key_of_pair(prompt: str, response: str) -> str:
    """Return what a question and an answer are kept under: no text of theirs is written.

    Example:
        >>> len(key_of_pair("Why?", "Because.")), key_of_pair("a", "bc") == key_of_pair("ab", "c")
        (32, False)
    """
    return hashlib.sha256(json.dumps([prompt, response]).encode()).hexdigest()[:32]


def count_megabytes(guard: Guard) -> float | None:
    """Return the size of a guard's weights in memory, in MB; None for one that is no network of ours.

    Args:
        guard: Any guard; members of several that share weights count once.
    """
    seen: dict[int, int] = {}
    pending: list[Any] = [guard]
    while pending:
        each = pending.pop()
        if isinstance(each, CompositeGuard):
            pending += each.members
            continue
        network = getattr(each, "classifier", None) or getattr(each, "model", None)
        if network is None or not hasattr(network, "parameters"):
            return None
        seen |= {id(weight): weight.numel() * weight.element_size() for weight in network.parameters()}
    return sum(seen.values()) / 1e6
