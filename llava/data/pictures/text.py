"""Drawing lines of text on a picture, keeping where every letter lies."""

from __future__ import annotations

import random
from dataclasses import dataclass

from PIL import Image, ImageDraw

from llava.data.pictures.fonts import Typeface, advance
from llava.data.pictures.records import Line

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Style:
    """How text is set."""

    typeface: Typeface
    size: int
    """Height of the font in pixels."""
    ink: Colour
    pitch: float
    """Distance between base lines, as a share of the size."""
    align: float = 0.0
    """0 sets lines to the left, 0.5 in the middle, 1 to the right."""
    stroke: int = 0
    """Width of an outline that makes the text bolder, in pixels."""

    @property
    def line_height(self) -> float:
        """Distance between base lines in pixels."""
        return self.size * self.pitch

    def width(self, text: str) -> float:
        """Return the width of `text` in pixels."""
        return advance(self.typeface, self.size, text)


def draw_lines(image: Image.Image, lines: list[str], style: Style, left: float, top: float, width: float) -> list[Line]:
    """Draw `lines` into the column of `width` that starts at (`left`, `top`).

    Returns:
        The lines with their places.
    """
    draw = ImageDraw.Draw(image)
    font = style.typeface.at(style.size)
    placed = []
    for number, text in enumerate(lines):
        middle = top + (number + 0.5) * style.line_height
        start = left + (width - style.width(text)) * style.align
        # "lm": the anchor is the middle between ascender and descender, the same for every line of a font.
        draw.text(
            (round(start), round(middle)),
            text,
            font=font,
            fill=style.ink,
            anchor="lm",
            stroke_width=style.stroke,
            stroke_fill=style.ink if style.stroke else None,
        )
        placed.append(Line(spoken(text), middle, _edges(text, style, start)))
    return placed


def spoken(text: str) -> str:
    """Return a line as a reader says it: capitals are a matter of dress.

    That halves what a small tower has to learn, since "Stop", "STOP" and "stop" are three tokens to a language model.

    Example:
        >>> spoken("STOP here, I say.")
        'stop here, i say.'
    """
    return text.lower()


def wrap(words: list[str], style: Style, width: float, most: int = 99) -> list[str]:
    """Fill lines of at most `width` pixels and `most` words; words that do not fit a line alone are left out."""
    lines: list[list[str]] = []
    for word in words:
        if style.width(word) > width:
            continue
        if lines and len(lines[-1]) < most and style.width(" ".join([*lines[-1], word])) <= width:
            lines[-1].append(word)
        else:
            lines.append([word])
    return [" ".join(line) for line in lines]


def contrasting(rng: random.Random) -> tuple[Colour, Colour]:
    """Return ink and ground that can be told apart, most often black on white."""
    choice = rng.random()
    if choice < 0.75:
        return (0, 0, 0), (255, 255, 255)
    if choice < 0.83:
        return (255, 255, 255), (0, 0, 0)
    while True:
        ink, ground = (tuple(rng.randint(0, 255) for _ in range(3)) for _ in range(2))
        if abs(_luminance(ink) - _luminance(ground)) > 90:
            return ink, ground  # type: ignore[return-value]


def _luminance(colour: tuple[int, ...]) -> float:
    """Return the brightness of a colour, 0 to 255."""
    return 0.3 * colour[0] + 0.59 * colour[1] + 0.11 * colour[2]


def _edges(text: str, style: Style, start: float) -> tuple[float, ...]:
    """Return the edges of all characters, from the widths of single characters: kerning is left out."""
    edges = [start]
    for character in text:
        edges.append(edges[-1] + style.width(character))
    return tuple(edges)
