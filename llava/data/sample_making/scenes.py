"""Simple drawn scenes for the sample benchmark: a ground and one or two things on it."""

from __future__ import annotations

import math

from PIL import Image, ImageDraw

from llava.data.sample_making.grounds import GROUNDS, Shape
from llava.data.sample_making.things import THINGS
from llava.data.typography import load_font

SIDE = 256
"""Side of a scene in pixels."""

_OVERSAMPLE = 4  # Drawn larger and scaled down, which smooths the edges.


def draw_scene(description: str) -> Image.Image:
    """Draw a scene.

    Args:
        description: A ground and one or two things, such as `night cinema person`.

    Returns:
        RGB image of `SIDE` × `SIDE` pixels.

    Raises:
        KeyError: For a ground or thing that is not defined above.
    """
    ground, *things = description.split()
    side = SIDE * _OVERSAMPLE
    image = Image.new("RGB", (side, side))
    draw = ImageDraw.Draw(image)
    _draw_shapes(draw, GROUNDS[ground], (0, 0), side)
    boxes = {1: [(20, 26, 60)], 2: [(3, 38, 50), (50, 42, 46)]}[len(things)]
    for thing, (left, top, size) in zip(things, boxes, strict=True):
        _draw_shapes(draw, THINGS[thing], (left / 100 * side, top / 100 * side), size / 100 * side)
    return image.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def _draw_shapes(draw: ImageDraw.ImageDraw, shapes: list[Shape], corner: tuple[float, float], size: float) -> None:
    """Draw shapes into the square box of the given upper left corner and size in pixels."""
    unit = size / 100

    def place(numbers: tuple[float, ...]) -> list[float]:
        return [corner[axis % 2] + number * unit for axis, number in enumerate(numbers)]

    for kind, colour, numbers, *extra in shapes:
        if kind == "rect":
            draw.rectangle(place(numbers), fill=colour)
        elif kind == "round":
            draw.rounded_rectangle(place(numbers), radius=6 * unit, fill=colour)
        elif kind == "oval":
            draw.ellipse(place(numbers), fill=colour)
        elif kind == "ring":
            draw.ellipse(place(numbers), outline=colour, width=round(5 * unit))
        elif kind == "poly":
            draw.polygon(place(numbers), fill=colour)
        elif kind == "line":
            draw.line(place(numbers[1:]), fill=colour, width=max(1, round(numbers[0] * unit)), joint="curve")
        elif kind == "half":
            start = extra[0] if extra else 180
            draw.pieslice(place(numbers), start, start + 180, fill=colour)
        elif kind == "star":
            x, y, radius = numbers
            x, y = place((x, y))
            draw.polygon([_star_point(x, y, radius * unit, number) for number in range(10)], fill=colour)
        elif kind == "text":
            size = extra[1] if len(extra) > 1 else 15
            x, y = place(numbers)
            draw.text((x, y), extra[0], font=load_font(round(size * unit)), fill=colour, anchor="mm")
        else:
            raise ValueError(f"unknown shape {kind!r}")


def _star_point(x: float, y: float, radius: float, number: int) -> tuple[float, float]:
    """Return one of the ten corners of a star, outer and inner in turn."""
    reach = radius if number % 2 == 0 else radius * 0.42
    angle = math.pi * (number / 5 - 0.5)
    return x + reach * math.cos(angle), y + reach * math.sin(angle)
