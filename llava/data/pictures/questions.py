"""Questions about a synthetic picture, each with its one right answer."""

from __future__ import annotations

import random
from collections.abc import Callable

from llava.data.pictures.records import Picture, soft_caption
from llava.data.pictures.shapes import NUMBERS, plural

READ_PROMPTS = (
    "Read the text in the picture.",
    "What does the picture say?",
    "What is written in the image?",
    "Read the words in the image.",
    "What text is shown in this picture?",
    "What does the text in the image say?",
)
DESCRIBE_PROMPTS = ("Describe the picture.", "What is in the picture?", "What shapes are in the image?")


def ask_to_read(rng: random.Random, picture: Picture) -> tuple[str, str]:
    """Ask for the text."""
    return rng.choice(READ_PROMPTS), picture.text


def ask_for_colour(rng: random.Random, picture: Picture) -> tuple[str, str]:
    """Ask for the colour of one group."""
    number, colour, shape = rng.choice(picture.groups)
    spelt = rng.choice(("colour", "color"))
    return f"What {spelt} {'is' if number == 1 else 'are'} the {plural(shape, number)}?", colour


def ask_for_shape(rng: random.Random, picture: Picture) -> tuple[str, str]:
    """Ask for the shape of one group."""
    _, colour, shape = rng.choice(picture.groups)
    return f"What shape is {colour}?", shape


def ask_for_number(rng: random.Random, picture: Picture) -> tuple[str, str]:
    """Ask for the number of shapes in one group."""
    number, colour, shape = rng.choice(picture.groups)
    named = rng.choice((plural(shape, 2), f"{colour} {plural(shape, 2)}"))
    return f"How many {named} are there?", NUMBERS[number - 1]


def ask_to_describe(rng: random.Random, picture: Picture) -> tuple[str, str]:
    """Ask for everything but the text."""
    return rng.choice(DESCRIBE_PROMPTS), soft_caption(picture.captions)


ASKERS: dict[str, Callable[[random.Random, Picture], tuple[str, str]]] = {
    "read": ask_to_read,
    "colour": ask_for_colour,
    "shape": ask_for_shape,
    "number": ask_for_number,
    "describe": ask_to_describe,
}
"""Kinds of questions by name."""


def ask(rng: random.Random, picture: Picture) -> tuple[str, str, str]:
    """Ask something that the picture answers.

    Returns:
        Kind of the question, question, answer.
    """
    kinds = (["read"] if picture.lines else []) + (["colour", "shape", "number", "describe"] if picture.groups else [])
    if len(kinds) > 1 and picture.lines and rng.random() < 0.5:
        kinds = ["read"]
    kind = rng.choice(kinds)
    return kind, *ASKERS[kind](rng, picture)
