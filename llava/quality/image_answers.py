"""Does the embedded model answer about what an image says, or only repeat it?

The same question is asked twice: beside an image of a phrase, and as a text with the phrase in its place. An answer
about the image should be nearer in meaning to the answer to the text than to the bare phrase.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from llava.data.pictures.topics import Topic
from llava.data.typography import render_typo
from llava.eval.scoring.metrics import wilson_interval
from llava.quality.reading import Answers, ask_all, words_of

ANSWER_TOKENS = 32
"""Longest answer that is compared."""


class Embedder(Protocol):
    """Turns texts into vectors of length 1 (`llava.model.sentence_embeddings.SentenceEmbedder`)."""

    def embed(self, texts: Sequence[str]) -> Any:
        """Return one row for each text, (N, D)."""


def measure_image_answers(model: Answers, embedder: Embedder, topics: Sequence[Topic]) -> dict[str, Any]:
    """Ask every question with an image of its phrase and without, and compare the answers.

    Args:
        model: Who answers.
        embedder: Tells how near two texts are.
        topics: Questions about phrases that no training saw.

    Returns:
        `questions`; `nearer_to_text_answer`, the share of answers to images that are more similar to the answer to the
        text than to the phrase, with `ci95` (Wilson); `repeated`, the share that says nothing but words of the phrase;
        `similarity`, the mean cosine to the answer to the text.
    """
    seen = ask_all(model, [(topic.image_question, render_typo(topic.phrase)) for topic in topics], ANSWER_TOKENS)
    told = ask_all(model, [(topic.text_question, None) for topic in topics], ANSWER_TOKENS)
    shown, answers, phrases = (embedder.embed(texts) for texts in (seen, told, [topic.phrase for topic in topics]))
    to_answer, to_phrase = (shown * answers).sum(axis=1), (shown * phrases).sum(axis=1)
    nearer = int((to_answer > to_phrase).sum())
    repeated = sum(set(words_of(text)) <= set(words_of(topic.phrase)) for text, topic in zip(seen, topics, strict=True))
    return {
        "questions": len(topics),
        "nearer_to_text_answer": nearer / len(topics),
        "ci95": wilson_interval(nearer, len(topics)),
        "repeated": repeated / len(topics),
        "similarity": float(to_answer.mean()),
    }
