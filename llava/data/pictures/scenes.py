"""Whole pictures by chance: phrases, pages, numbered lists, typographic attacks and shapes."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

from PIL import Image

from llava.data.pictures.fonts import Typeface
from llava.data.pictures.records import Picture
from llava.data.pictures.shapes import caption, draw_shapes
from llava.data.pictures.text import Style, contrasting, draw_lines, wrap
from llava.data.pictures.vocabulary import Vocabulary

SIDES = (160, 240, 320, 480)
"""Longest sides of pictures in pixels; a tower sees them shrunk."""
FIGSTEP_FACES = ("FreeMonoBold", "Aileron")
"""What FigStep's lists are set in: its own typeface, and the one of `typography.render_numbered_list`."""
LIST_OPENINGS = ("List of", "Steps to", "Methods to", "List", "Ways to", "Tips for")

Maker = Callable[[random.Random, Vocabulary, Sequence[Typeface]], Picture]


def make_phrase(rng: random.Random, vocabulary: Vocabulary, typefaces: Sequence[Typeface]) -> Picture:
    """Draw one to four words anywhere, on one line or several, in any colours, as large as they fit."""
    side = rng.choice(SIDES)
    width, height = side, round(side * rng.choice((1, 1, 1, rng.uniform(0.3, 1))))
    ink, ground = contrasting(rng)
    words = _dress(rng, [vocabulary.draw(rng) for _ in range(rng.randint(1, 4))])
    style = _style(rng, typefaces, side, ink, largest=0.24)
    while style.size > 0.08 * side and max(style.width(word) for word in words) > width * 0.96:
        style = _resized(style, style.size * 0.85)
    lines = wrap(words, style, width * 0.97, most=rng.choice((1, 2, 4, 4)))
    lines = lines[: max(1, int(height / style.line_height))] or ["1"]
    image = Image.new("RGB", (width, height), ground)
    block = max(style.width(line) for line in lines)
    left = rng.uniform(0.01 * width, max(0.01 * width, width * 0.99 - block))
    top = rng.uniform(0, max(0.0, height - style.line_height * len(lines)))
    return Picture(image, draw_lines(image, lines, style, left, top, block))


def make_page(rng: random.Random, vocabulary: Vocabulary, typefaces: Sequence[Typeface]) -> Picture:
    """Fill a picture with lines of words: many words for the price of one picture."""
    side = rng.choice(SIDES)
    ink, ground = contrasting(rng)
    style = _style(rng, typefaces, side, ink, largest=0.16)
    if rng.random() < 0.65:
        # As many words as can be told apart.
        size = max(9, round(side * rng.uniform(0.072, 0.095)))
        style = Style(style.typeface, size, ink, rng.uniform(0.1, 0.112) * side / size, style.align, style.stroke)
    width, height = side, round(side * rng.choice((1, 1, 1, rng.uniform(0.5, 1))))
    most = rng.choice((2, 3, 5, 5, 5))
    lines = wrap(_dress(rng, [vocabulary.draw(rng) for _ in range(40)]), style, width * 0.97, most)
    image = Image.new("RGB", (width, height), ground)
    room = max(1, int(height / style.line_height))
    left, top = (
        rng.uniform(0, 0.04) * side,
        rng.uniform(0, max(0.0, height - style.line_height * min(room, len(lines)))),
    )
    return Picture(image, draw_lines(image, lines[:room], style, left, top, width * 0.97 - left))


def make_list(rng: random.Random, vocabulary: Vocabulary, typefaces: Sequence[Typeface]) -> Picture:
    """Draw a title over a numbered list with empty items, as FigStep does (arXiv 2311.05608, section 3)."""
    side = rng.choice((*SIDES, 760))
    favourites = [face for face in typefaces if face.name in FIGSTEP_FACES]
    face = rng.choice(favourites if favourites and rng.random() < 0.75 else list(typefaces))
    size = round(side * rng.uniform(0.085, 0.11))
    stroke = round(size / 40) if face.path is None else 0
    ink, ground = ((0, 0, 0), (255, 255, 255)) if rng.random() < 0.9 else contrasting(rng)
    style = Style(face, size, ink, rng.uniform(0.93, 1.2), stroke=stroke)
    words = [vocabulary.draw(rng) for _ in range(rng.randint(2, 10))]
    words = [*rng.choice(LIST_OPENINGS).split(), *words] if rng.random() < 0.6 else _dress(rng, words, 1.0)
    words = [word + "'s" if rng.random() < 0.03 else word for word in words]
    margin = side * rng.uniform(0.01, 0.05)
    lines = wrap(words, style, side - 2 * margin) or ["1"]
    room = int((side - 2 * margin) / style.line_height)
    lines = lines[: max(1, room - 3)]
    lines[-1] += "." if rng.random() < 0.8 else ""
    lines = [*lines, "1.", "2.", "3."][:room]
    image = Image.new("RGB", (side, side), ground)
    return Picture(image, draw_lines(image, lines, style, margin, rng.uniform(0, margin), side - 2 * margin))


def make_attack(rng: random.Random, vocabulary: Vocabulary, typefaces: Sequence[Typeface]) -> Picture:
    """Draw a key phrase black on white, centred and wrapped, as MM-SafetyBench's TYPO (arXiv 2311.17600, section 3)."""
    width = rng.choice((320, 512, 1024))
    plain = [face for face in typefaces if face.path is None]
    face = rng.choice(plain if plain and rng.random() < 0.6 else list(typefaces))
    style = Style(face, round(width * rng.uniform(0.08, 0.1)), (0, 0, 0), rng.uniform(1.1, 1.3), align=0.5)
    words = _dress(rng, [vocabulary.draw(rng) for _ in range(rng.randint(1, 6))])
    margin = round(width * 0.035)
    lines = wrap(words, style, width - 2 * margin) or ["1"]
    image = Image.new("RGB", (width, round(style.line_height * len(lines)) + 2 * margin), "white")
    return Picture(image, draw_lines(image, lines, style, margin, margin, width - 2 * margin))


def make_shapes(rng: random.Random, vocabulary: Vocabulary, typefaces: Sequence[Typeface]) -> Picture:
    """Draw coloured shapes and no words."""
    side = rng.choice(SIDES)
    image, groups, things = draw_shapes(rng, side, round(side * rng.choice((1, 1, rng.uniform(0.7, 1)))))
    return Picture(image, captions=[caption(group) for group in groups], groups=groups, things=things)


def make_captioned(rng: random.Random, vocabulary: Vocabulary, typefaces: Sequence[Typeface]) -> Picture:
    """Draw shapes with a key phrase below, as MM-SafetyBench's SD_TYPO puts it below a scene."""
    side = rng.choice((224, 320, 480))
    scene, groups, things = draw_shapes(rng, side, round(side * rng.uniform(0.7, 1)))
    phrase = make_attack(rng, vocabulary, typefaces)
    scale = side / phrase.image.width
    below = phrase.image.resize((side, round(phrase.image.height * scale)), Image.Resampling.BICUBIC)
    image = Image.new("RGB", (side, scene.height + below.height), "white")
    image.paste(scene, (0, 0))
    image.paste(below, (0, scene.height))
    lines = [
        type(line)(line.text, line.y * scale + scene.height, tuple(edge * scale for edge in line.edges))
        for line in phrase.lines
    ]
    return Picture(image, lines, [caption(group) for group in groups], groups, things)


MAKERS: dict[str, Maker] = {
    "phrase": make_phrase,
    "page": make_page,
    "list": make_list,
    "attack": make_attack,
    "shapes": make_shapes,
    "captioned": make_captioned,
}
"""Kinds of pictures by name."""


def make_picture(
    rng: random.Random, mixture: Mapping[str, float], vocabulary: Vocabulary, typefaces: Sequence[Typeface]
) -> Picture:
    """Make a picture of a kind drawn by the weights of `mixture`.

    Args:
        rng: Source of chance; the same state gives the same picture.
        mixture: Weight of each kind in `MAKERS`.
        vocabulary: Words to draw.
        typefaces: Typefaces to set them in.
    """
    [kind] = rng.choices(list(mixture), weights=list(mixture.values()))
    return MAKERS[kind](rng, vocabulary, typefaces)


def _style(
    rng: random.Random, typefaces: Sequence[Typeface], side: int, ink: tuple[int, int, int], largest: float
) -> Style:
    """Return a random style; small sizes, the hard ones, are as likely as all others together."""
    share = rng.uniform(0.072, 0.115) if rng.random() < 0.5 else rng.uniform(0.1, largest)
    # Lines closer than a row of the tower's grid cannot all be said, so small text is spread.
    pitch = rng.uniform(max(1.05, 0.098 / share), max(1.5, 0.13 / share))
    face = rng.choice(list(typefaces))
    size = max(9, round(side * share))
    stroke = round(size / 40) if face.path is None and rng.random() < 0.5 else 0
    return Style(face, size, ink, pitch, rng.choice((0.0, 0.5, 0.5, 1.0)), stroke)


def _resized(style: Style, size: float) -> Style:
    """Return the style at another size."""
    return Style(style.typeface, max(9, round(size)), style.ink, style.pitch, style.align, style.stroke)


def _dress(rng: random.Random, words: list[str], capital: float = 0.3) -> list[str]:
    """Put words in title, sentence or upper case by chance, with a number or a mark here and there."""
    words = [str(rng.randint(0, 2030)) if rng.random() < 0.015 else word for word in words]
    words = ["I" if word == "i" else word for word in words]
    choice = rng.random()
    if choice < capital:
        words = [words[0].capitalize(), *words[1:]]
    elif choice < capital + 0.15:
        words = [word.capitalize() for word in words]
    elif choice < capital + 0.22:
        words = [word.upper() for word in words]
    marks = rng.random()
    if marks < 0.12:
        words[-1] += rng.choice(".!?,:")
    return words
