"""What a synthetic picture is made of."""

from __future__ import annotations

from dataclasses import dataclass, field

from PIL import Image


@dataclass(frozen=True)
class Line:
    """One line of text in a picture, as a reader would say it."""

    text: str
    """The words, in small letters."""
    y: float
    """Vertical centre in pixels."""
    edges: tuple[float, ...]
    """Left edge of every character and right edge of the last, in pixels; one more than there are characters."""


@dataclass(frozen=True)
class Thing:
    """One shape in a picture."""

    name: str
    """Colour and form ("red circle")."""
    x: float
    """Centre in pixels."""
    y: float


@dataclass
class Picture:
    """A picture with what there is to say about it."""

    image: Image.Image
    """RGB image."""
    lines: list[Line] = field(default_factory=list)
    """Lines of text, from top to bottom."""
    captions: list[str] = field(default_factory=list)
    """One phrase for each group of shapes ("two red circles")."""
    groups: list[tuple[int, str, str]] = field(default_factory=list)
    """The groups of shapes: how many, colour, shape (singular)."""
    things: list[Thing] = field(default_factory=list)
    """The shapes, each where it is."""

    @property
    def text(self) -> str:
        """All words in reading order."""
        return " ".join(line.text for line in self.lines)


def soft_caption(captions: list[str]) -> str:
    """Join the captions of a picture's groups into one phrase.

    Example:
        >>> soft_caption(["two red circles", "one blue square"])
        'two red circles and one blue square'
    """
    return " and ".join(captions)
