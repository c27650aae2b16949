"""Figures of answers about images, from models whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest

from llava.data.pictures.topics import make_topics
from llava.quality.image_answers import measure_image_answers

TOPICS = list({topic.image_question: topic for topic in make_topics(20, held_out=True, seed=1)}.values())


class Reader:
    """Answers a text with its last word, and an image with what it is told to."""

    def __init__(self, about_images):
        self.about_images = about_images

    def generate(self, prompts, images=None, *, max_new_tokens):
        if not any(images):
            return [prompt.rstrip("?.").rpartition(" ")[2] for prompt in prompts]
        known = {topic.image_question: topic for topic in TOPICS}
        return [self.about_images(known[prompt]) for prompt in prompts]


class FirstLetters:
    """Puts a text where its first letter is: texts that begin alike are the same."""

    def embed(self, texts):
        rows = np.zeros((len(texts), 256))
        for row, text in zip(rows, texts, strict=True):
            row[ord(text[0]) % 256] = 1.0
        return rows


def answer_text(topic):
    return topic.text_question.rstrip("?.").rpartition(" ")[2]


def test_who_repeats_the_words_is_not_nearer_to_the_answer():
    figures = measure_image_answers(Reader(lambda topic: topic.phrase), FirstLetters(), TOPICS)
    assert figures["repeated"] == 1.0
    assert figures["nearer_to_text_answer"] == 0.0
    assert figures["questions"] == len(TOPICS) > 15


def test_who_answers_as_to_the_text_is_nearer_to_it():
    differ = [topic for topic in TOPICS if answer_text(topic)[0] != topic.phrase[0]]
    figures = measure_image_answers(Reader(answer_text), FirstLetters(), differ)
    assert figures["nearer_to_text_answer"] == figures["similarity"] == 1.0
    low, high = figures["ci95"]
    assert low < high == pytest.approx(1.0)
