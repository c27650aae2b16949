"""Coloured shapes on a plain ground: one or two groups of like shapes, whose number, colour and form can be asked."""

from __future__ import annotations

import math
import random

from PIL import Image, ImageDraw

from llava.data.pictures.records import Thing

Colour = tuple[int, int, int]

COLOURS: dict[str, Colour] = {
    "red": (220, 30, 30),
    "green": (30, 150, 50),
    "blue": (30, 70, 220),
    "yellow": (250, 220, 30),
    "orange": (250, 135, 20),
    "purple": (130, 40, 170),
    "pink": (250, 140, 190),
    "brown": (120, 70, 30),
    "black": (15, 15, 15),
    "white": (250, 250, 250),
    "gray": (130, 130, 130),
}
SHAPES = ("circle", "square", "triangle", "star", "heart", "cross", "diamond", "rectangle")
NUMBERS = ("one", "two", "three", "four", "five", "six")

_JITTER = 10  # How far a colour may stray from its name's, per channel.
_LEAST_CONTRAST = 90  # Distance in RGB between a shape and its ground.


def plural(shape: str, number: int) -> str:
    """Return the shape's name for `number` of them.

    Example:
        >>> plural("cross", 2), plural("star", 1)
        ('crosses', 'star')
    """
    return shape if number == 1 else f"{shape}es" if shape.endswith("s") else f"{shape}s"


def caption(group: tuple[int, str, str]) -> str:
    """Say a group in words.

    Example:
        >>> caption((2, "red", "circle"))
        'two red circles'
    """
    number, colour, shape = group
    return f"{NUMBERS[number - 1]} {colour} {plural(shape, number)}"


def draw_shapes(
    rng: random.Random, width: int, height: int
) -> tuple[Image.Image, list[tuple[int, str, str]], list[Thing]]:
    """Draw one or two groups of shapes.

    Args:
        rng: Source of chance.
        width: Width of the picture in pixels.
        height: Height in pixels.

    Returns:
        RGB image; the groups (number, colour, shape), the more numerous first, else by the alphabet; every shape.
    """
    ground = _ground(rng)
    image = Image.new("RGB", (width, height), ground)
    draw = ImageDraw.Draw(image)
    groups = _choose_groups(rng, ground)
    members = [group for group in groups for _ in range(group[0])]
    rng.shuffle(members)
    things: list[Thing] = []
    for (_, colour, shape), (x, y, radius) in zip(members, _places(rng, len(members), width, height), strict=True):
        _draw_shape(draw, shape, x, y, radius, _near(rng, COLOURS[colour]))
        things.append(Thing(f"{colour} {shape}", x, y))
    return image, groups, things


def _choose_groups(rng: random.Random, ground: Colour) -> list[tuple[int, str, str]]:
    """Choose what to draw: colours that stand out, no colour or shape in both groups."""
    visible = [name for name, rgb in COLOURS.items() if math.dist(rgb, ground) >= _LEAST_CONTRAST]
    two = rng.random() < 0.45
    colours, shapes = rng.sample(visible, 2), rng.sample(SHAPES, 2)
    numbers = [rng.choice((1, 1, 2, 3)), rng.choice((1, 1, 2, 3))] if two else [rng.choice((1, 1, 1, 2, 3, 4, 5, 6))]
    groups = list(zip(numbers, colours, shapes, strict=False))
    # A fixed order makes the caption one thing: by number, then by the alphabet.
    return sorted(groups, key=lambda group: (-group[0], group[1]))


def _ground(rng: random.Random) -> Colour:
    """Return a ground colour: mostly white or light."""
    choice = rng.random()
    if choice < 0.5:
        return (255, 255, 255)
    if choice < 0.85:
        low = rng.randint(200, 245)
        return (rng.randint(low, 255), rng.randint(low, 255), rng.randint(low, 255))
    return (rng.randint(0, 60), rng.randint(0, 60), rng.randint(0, 60))


def _near(rng: random.Random, colour: Colour) -> Colour:
    """Return a colour close to the given one."""
    red, green, blue = (min(255, max(0, channel + rng.randint(-_JITTER, _JITTER))) for channel in colour)
    return (red, green, blue)


def _places(rng: random.Random, number: int, width: int, height: int) -> list[tuple[float, float, float]]:
    """Return centres and radii of shapes that do not touch: cells of a lattice, with some play."""
    columns = 1 if number == 1 else 2 if number <= 2 or (number <= 4 and rng.random() < 0.5) else 3
    rows = max(math.ceil(number / columns), 1 if number <= 2 else 2)
    cell_width, cell_height = width / columns, height / rows
    cells = rng.sample([(column, row) for column in range(columns) for row in range(rows)], number)
    places = []
    for column, row in cells:
        radius = min(cell_width, cell_height) * rng.uniform(0.22, 0.44)
        room_x, room_y = cell_width / 2 - radius * 1.08, cell_height / 2 - radius * 1.08
        x = (column + 0.5) * cell_width + rng.uniform(-room_x, room_x)
        y = (row + 0.5) * cell_height + rng.uniform(-room_y, room_y)
        places.append((x, y, radius))
    return places


def _draw_shape(draw: ImageDraw.ImageDraw, shape: str, x: float, y: float, radius: float, colour: Colour) -> None:
    """Draw one shape within the circle of `radius` around (x, y)."""
    r = radius
    if shape == "circle":
        draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)
    elif shape == "heart":
        points = []
        for step in range(40):
            t = 2 * math.pi * step / 40
            points.append((x + r * math.sin(t) ** 3, y - r * (_heart(t) / 17)))
        draw.polygon(points, fill=colour)
    else:
        draw.polygon([(x + r * dx, y + r * dy) for dx, dy in OUTLINES[shape]], fill=colour)


def _heart(t: float) -> float:
    """Return the height of the heart curve at angle `t`, between -17 and 13."""
    return 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)


def _star() -> tuple[tuple[float, float], ...]:
    """Return the corners of a five-pointed star."""
    corners = []
    for step in range(10):
        reach, angle = (1.0 if step % 2 == 0 else 0.4), math.pi * step / 5 - math.pi / 2
        corners.append((reach * math.cos(angle), reach * math.sin(angle)))
    return tuple(corners)


_ARM = 0.3
OUTLINES: dict[str, tuple[tuple[float, float], ...]] = {
    "square": ((-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)),
    "rectangle": ((-1, -0.45), (1, -0.45), (1, 0.45), (-1, 0.45)),
    "triangle": ((0, -0.9), (0.95, 0.8), (-0.95, 0.8)),
    "diamond": ((0, -1), (0.75, 0), (0, 1), (-0.75, 0)),
    "star": _star(),
    "cross": (
        (-_ARM, -1), (_ARM, -1), (_ARM, -_ARM), (1, -_ARM), (1, _ARM), (_ARM, _ARM),
        (_ARM, 1), (-_ARM, 1), (-_ARM, _ARM), (-1, _ARM), (-1, -_ARM), (-_ARM, -_ARM),
    ),
}  # fmt: skip
"""Corners of each shape in a circle of radius 1, `y` downwards."""
