"""Cut a question list into batches, in a way that depends on nothing but the list and the batch size.

The rows that share a batch share its padding, and padding moves the last bits of a floating-point sum. A batch is
therefore the smallest unit of work: neither the number of processes nor a resume may change which questions it holds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from llava.data.schema import Question, RecordKey
from llava.errors import InputError

SEED_BITS = 63


@dataclass(frozen=True)
class Batch:
    """Questions that go through the model together."""

    index: int
    """Place in the plan; the name of the batch in claim files."""
    positions: tuple[int, ...]
    """Places of its questions in the question list."""


class Numbered(Protocol):
    """A piece of work that processes claim by its number: a batch, or anything else."""

    @property
    def index(self) -> int:
        """Place in the plan; the name in claim files."""
        ...


Piece = TypeVar("Piece", bound=Numbered)


def plan_batches(questions: Sequence[Question], batch_size: int) -> list[Batch]:
    """Cut `questions` into batches of similar rows.

    Questions with an image come first and never share a batch with text-only ones: an image adds hundreds of tokens, so
    a mixed batch would be mostly padding. Within each kind the longest prompts come first, so a batch that does not fit
    into memory shows at the start of a run and not at its end.

    Args:
        questions: The whole question list, in its own order, also when a part of it is answered already.
        batch_size: Most rows of a batch.

    Returns:
        Batches that hold each position exactly once.

    Example:
        >>> from llava.data.schema import ImageType
        >>> ask = lambda id, prompt: Question("sample", "A", id, ImageType.TEXT, prompt)
        >>> questions = [ask("1", "short"), ask("2", "much longer"), ask("3", "mid")]
        >>> [batch.positions for batch in plan_batches(questions, 2)]
        [(1, 0), (2,)]
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    batches: list[Batch] = []
    for with_image in (True, False):
        positions = [place for place, question in enumerate(questions) if (question.image is not None) == with_image]
        positions.sort(key=lambda place: -len(questions[place].prompt))
        for start in range(0, len(positions), batch_size):
            batches.append(Batch(len(batches), tuple(positions[start : start + batch_size])))
    return batches


def split_batch(positions: Sequence[int]) -> list[tuple[int, ...]]:
    """Return the two halves of a batch that did not fit into memory, always cut at the same place.

    Example:
        >>> split_batch((4, 1, 7))
        [(4, 1), (7,)]
    """
    middle = (len(positions) + 1) // 2
    return [tuple(positions[:middle]), tuple(positions[middle:])]


def select_pending(
    batches: Sequence[Batch], questions: Sequence[Question], done: set[RecordKey], *, whole: bool = True
) -> list[Batch]:
    """Return the batches that still lack a record.

    Args:
        batches: All batches of the list.
        questions: The question list.
        done: Keys of the questions that have a record.
        whole: Whether a batch that lacks a record is generated whole; otherwise only what it lacks is returned. A
            server makes batches of its own, so there a question that has its record is not asked, and paid for, again.
    """
    pending = []
    for batch in batches:
        missing = tuple(place for place in batch.positions if questions[place].key not in done)
        if missing:
            pending.append(batch if whole else Batch(batch.index, missing))
    return pending


def order_for_rank(batches: Sequence[Piece], rank: int, num_processes: int) -> list[Piece]:
    """Return all batches in the order in which one process tries them: its own share, then everybody else's.

    The others' shares are walked from their ends, so a process that helps and the owner meet only at the last batch.

    Example:
        >>> [batch.index for batch in order_for_rank([Batch(i, (i,)) for i in range(5)], 0, 2)]
        [0, 2, 4, 3, 1]
    """
    own = [batch for place, batch in enumerate(batches) if place % num_processes == rank]
    others = [batch for place, batch in enumerate(batches) if place % num_processes != rank]
    return own + others[::-1]


def derive_seed(run_seed: int, key: RecordKey) -> int:
    """Return the sampling seed of one question: fixed by the run's seed and the question, not by its place."""
    digest = hashlib.sha256(json.dumps([run_seed, *key]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> (64 - SEED_BITS)


def check_texts(questions: Sequence[Question]) -> None:
    """Refuse a question whose text could not be written to a file.

    Raises:
        InputError: When a text is not valid Unicode; the message names the question.
    """
    for question in questions:
        try:
            json.dumps(question.to_dict(), ensure_ascii=False).encode()
        except UnicodeEncodeError:
            name = "/".join(question.key)
            raise InputError(f"question {name} holds half of a surrogate pair; save its file as UTF-8") from None


def hash_questions(questions: Sequence[Question]) -> str:
    """Return a digest of what is asked: keys, prompts, and names of images (not where the data lies)."""
    digest = hashlib.sha256()
    for question in questions:
        image = question.image.replace("\\", "/").rsplit("/", 1)[-1] if question.image else None
        digest.update(json.dumps([*question.key, question.prompt, image, question.harmful]).encode())
    return digest.hexdigest()
