"""What the embedded model reads, measured from outside: pictures and questions in, answers out."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import Any, Protocol

from PIL import Image

from llava.data.pictures import Typeface, Vocabulary
from llava.data.pictures.questions import ASKERS, READ_PROMPTS
from llava.data.pictures.scenes import make_phrase, make_shapes
from llava.data.typography import render_typo
from llava.eval.scoring.metrics import wilson_interval

READ_PROMPT = READ_PROMPTS[0]
SHAPE_QUESTIONS = ("colour", "shape", "number")
BATCH = 16


class Answers(Protocol):
    """A model that answers questions about pictures (`llava.model.answering.generation.MultimodalModel`)."""

    def generate(
        self, prompts: Sequence[str], images: Sequence[Image.Image | None] | None, *, max_new_tokens: int
    ) -> list[str]:
        """Return the answers."""


def edit_distance(first: Sequence[Any], second: Sequence[Any]) -> int:
    """Return how many insertions, deletions and substitutions make one sequence of the other (Levenshtein).

    Example:
        >>> edit_distance("kitten", "sitting"), edit_distance(["a", "b"], ["b"])
        (3, 1)
    """
    row = list(range(len(second) + 1))
    for number, item in enumerate(first, 1):
        previous, row[0] = row[0], number
        for place, other in enumerate(second, 1):
            previous, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, previous + (item != other))
    return row[-1]


def words_of(text: str) -> list[str]:
    """Return the words of a text in small letters, without marks around them.

    Example:
        >>> words_of('The "Stop" sign.')
        ['the', 'stop', 'sign']
    """
    return [word for raw in text.lower().split() if (word := raw.strip(".,:;!?\"'"))]


def words_read(wanted: str, answer: str) -> tuple[int, int]:
    """Return how many of the wanted words an answer has right, and how many there are.

    Words are right that stand in the answer in their order; each word too many takes one off.

    Example:
        >>> words_read("stop here now", "stop her now"), words_read("stop", "stop stop")
        ((2, 3), (0, 1))
    """
    reference = words_of(wanted)
    return max(0, len(reference) - edit_distance(reference, words_of(answer))), len(reference)


def title_of(answer: str) -> str:
    """Return the title of a numbered list that was read out: what stands before the first item.

    Example:
        >>> title_of("Steps to bake bread. 1. 2. 3.")
        'Steps to bake bread.'
    """
    return re.split(r"\s*\b1\s?\.", " ".join(answer.split()), maxsplit=1)[0].strip()


def measure_words(
    model: Answers, vocabulary: Vocabulary, typefaces: Sequence[Typeface], *, pictures: int, seed: int
) -> dict[str, Any]:
    """Let the model read phrases of one to four words in any dress, and the same number of TYPO attacks.

    Args:
        model: Who reads.
        vocabulary: Words of the phrases; the tail of rare ones is left out.
        typefaces: Typefaces of the phrases. Attacks are set by `typography.render_typo`.
        pictures: How many of each.
        seed: Seed; phrases of another seed are other phrases.
    """
    rng, common = random.Random(f"{seed}:measure"), Vocabulary(vocabulary.common)
    phrases = [make_phrase(rng, common, sorted(set(typefaces), key=lambda face: face.name)) for _ in range(pictures)]
    attacks = [" ".join(common.draw(rng) for _ in range(rng.randint(1, 4))).capitalize() for _ in range(pictures)]
    return {
        "phrases": _word_accuracy(model, [(picture.image, picture.text) for picture in phrases]),
        "typo": _word_accuracy(model, [(render_typo(attack), attack) for attack in attacks]),
    }


def _word_accuracy(model: Answers, rows: Sequence[tuple[Image.Image, str]]) -> dict[str, Any]:
    """Return word accuracy with its interval, and the share of pictures read without a fault."""
    answers = ask_all(model, [(READ_PROMPT, image) for image, _ in rows], max_new_tokens=24)
    counts = [words_read(wanted, answer) for (_, wanted), answer in zip(rows, answers, strict=True)]
    right, words = (sum(column) for column in zip(*counts, strict=True))
    return {
        "pictures": len(rows),
        "words": words,
        "word_accuracy": right / words,
        "ci95": wilson_interval(right, words),
        "picture_accuracy": sum(good == number for good, number in counts) / len(rows),
    }


def measure_shapes(model: Answers, *, pictures: int, seed: int) -> dict[str, Any]:
    """Ask for colour, shape and number of what is drawn, once for each picture and kind of question.

    Returns:
        `questions`, `accuracy` and `ci95` of each kind, and of `colour_and_shape` together.
    """
    rng = random.Random(f"{seed}:measure-shapes")
    drawn = [make_shapes(rng, Vocabulary(("a",)), ()) for _ in range(pictures)]
    figures, answered = {}, dict[str, int]()
    for kind in SHAPE_QUESTIONS:
        asked = [ASKERS[kind](rng, picture) for picture in drawn]
        rows = [(question, picture.image) for (question, _), picture in zip(asked, drawn, strict=True)]
        answers = ask_all(model, rows, max_new_tokens=8)
        right = sum(words_of(answer) == [wanted] for (_, wanted), answer in zip(asked, answers, strict=True))
        answered[kind] = right
        figures[kind] = _accuracy(right, pictures)
    figures["colour_and_shape"] = _accuracy(answered["colour"] + answered["shape"], 2 * pictures)
    return figures


def _accuracy(right: int, questions: int) -> dict[str, Any]:
    """Return the share of right answers with its interval."""
    return {"questions": questions, "accuracy": right / questions, "ci95": wilson_interval(right, questions)}


def measure_titles(model: Answers, rows: Sequence[tuple[Image.Image, str]]) -> dict[str, Any]:
    """Let the model read numbered lists and compare their titles, letter by letter, capitals and all.

    Args:
        model: Who reads.
        rows: Pictures and their titles.

    Returns:
        `character_error_rate`: edits over letters of all titles; `title_accuracy`: share without a fault.
    """
    answers = ask_all(model, [(READ_PROMPT, image) for image, _ in rows], max_new_tokens=48)
    read = [title_of(answer) for answer in answers]
    edits = [edit_distance(title, found) for (_, title), found in zip(rows, read, strict=True)]
    counts = [words_read(title, found) for (_, title), found in zip(rows, read, strict=True)]
    return {
        "pictures": len(rows),
        "character_error_rate": sum(edits) / sum(len(title) for _, title in rows),
        "word_accuracy": sum(right for right, _ in counts) / sum(number for _, number in counts),
        "title_accuracy": sum(edit == 0 for edit in edits) / len(rows),
    }


def ask_all(model: Answers, rows: Sequence[tuple[str, Image.Image | None]], max_new_tokens: int) -> list[str]:
    """Return the answers to all questions, each with its image or None, a batch at a time."""
    answers: list[str] = []
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        answers += model.generate(
            [question for question, _ in batch], [image for _, image in batch], max_new_tokens=max_new_tokens
        )
    return answers
