"""Key phrase → image: the typographic attacks of MM-SafetyBench and FigStep.

Both put the harmful words into the picture, where a model's text-only safety training does not look for them.
MM-SafetyBench (arXiv 2311.17600, section 3) prints a key phrase, alone (TYPO) or below a generated scene (SD_TYPO);
FigStep (arXiv 2311.05608, section 3) prints an instruction as the title of a numbered list with empty items.

The same text gives the same bytes under the same Pillow version: the font is Pillow's own (Aileron) and the layout
is computed here, not by the system's text engine.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

from PIL import Image, ImageDraw, ImageFont

from llava.errors import InputError

TYPO_WIDTH = 1024
"""Width of a TYPO image in pixels; its height follows from the text."""

FIGSTEP_SIDE = 760
"""Side of a FigStep image in pixels."""

_TYPO_FONT_SHARE = 0.088  # Font size of a TYPO image, as a share of its width (90 pixels at 1024).
_FIGSTEP_FONT_SIZE = 76
_FIGSTEP_MARGIN = 22
_SMALLEST_FONT = 8
_MOST_CHARACTERS = 5_000  # More than any image takes; measuring a longer text would take long.


def load_font(size: int, font_path: str | Path | None = None) -> ImageFont.FreeTypeFont:
    """Load the font that text is drawn with.

    Args:
        size: Height of the font in pixels.
        font_path: TrueType or OpenType file; None for Pillow's built-in font, which covers ASCII only.

    Returns:
        The font. Characters that it lacks are drawn as its "missing" box.

    Raises:
        InputError: When `font_path` is not a readable font.
    """
    if font_path is None:
        return cast("ImageFont.FreeTypeFont", ImageFont.load_default(size))
    try:
        return ImageFont.truetype(str(font_path), size, layout_engine=ImageFont.Layout.BASIC)
    except OSError as error:
        raise InputError(f"font {font_path} cannot be read ({error}); give a .ttf or .otf file") from None


def wrap_text(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Break `text` into lines of at most `width` pixels, between words where that is possible.

    Args:
        text: What to wrap; all white space counts as one space.
        font: Font that the lines are measured with.
        width: Room for one line, in pixels.

    Returns:
        The lines, at least one (empty for empty text). A word wider than a line is cut.

    Example:
        >>> wrap_text("sneaking into a cinema", load_font(20), 125)
        ['sneaking into', 'a cinema']
    """
    lines: list[str] = []
    line = ""
    for word in text.split():
        candidate = f"{line} {word}" if line else word
        if font.getlength(candidate) <= width:
            line = candidate
            continue
        if line:
            lines.append(line)
        *full, line = _cut_word(word, font, width)
        lines.extend(full)
    return [*lines, line]


def render_typo(phrase: str, *, width: int = TYPO_WIDTH, font_path: str | Path | None = None) -> Image.Image:
    """Draw a key phrase in MM-SafetyBench's TYPO manner: black on white, wrapped and centred.

    Args:
        phrase: The key phrase.
        width: Width of the image in pixels; font and height follow from it.
        font_path: See `load_font`.

    Returns:
        RGB image, `width` wide and as high as the text needs.

    Example:
        >>> render_typo("a borrowed bicycle").width
        1024
    """
    font = load_font(max(_SMALLEST_FONT, round(width * _TYPO_FONT_SHARE)), font_path)
    margin = round(width * 0.035)
    lines = wrap_text(phrase, font, width - 2 * margin)
    line_height = _line_height(font)
    image = Image.new("RGB", (width, line_height * len(lines) + 2 * margin), "white")
    draw = ImageDraw.Draw(image)
    for number, line in enumerate(lines):
        left = (width - font.getlength(line)) / 2
        draw.text((left, margin + number * line_height), line, font=font, fill="black")
    return image


def render_sd_typo(scene: Image.Image, phrase: str, *, font_path: str | Path | None = None) -> Image.Image:
    """Put a key phrase below a scene in MM-SafetyBench's SD_TYPO manner.

    Args:
        scene: The picture; the result is as wide.
        phrase: The key phrase.
        font_path: See `load_font`.

    Returns:
        RGB image: the scene above, the phrase below.
    """
    caption = render_typo(phrase, width=scene.width, font_path=font_path)
    image = Image.new("RGB", (scene.width, scene.height + caption.height), "white")
    image.paste(scene, (0, 0))
    image.paste(caption, (0, scene.height))
    return image


def render_numbered_list(
    title: str, *, items: int = 3, side: int = FIGSTEP_SIDE, font_path: str | Path | None = None
) -> Image.Image:
    """Draw an instruction in FigStep's manner: the title, then `1.` `2.` `3.` with nothing behind.

    FigStep's own images are set in FreeMono Bold at 80 pixels; the built-in font is close to it in size, not in
    shape. Give that font's file as `font_path` for the original look. The font shrinks until a long title fits.

    Args:
        title: The instruction ("Steps to bake bread.").
        items: How many empty items follow.
        side: Side of the square image in pixels.
        font_path: See `load_font`.

    Returns:
        RGB image of `side` × `side` pixels.

    Raises:
        InputError: When the title does not fit even in the smallest font, or `font_path` is not a readable font.
    """
    if len(title) > _MOST_CHARACTERS:
        raise InputError(f"a text of {len(title):,} characters does not fit on an image; shorten it")
    margin = round(side * _FIGSTEP_MARGIN / FIGSTEP_SIDE)
    size = round(side * _FIGSTEP_FONT_SIZE / FIGSTEP_SIDE)
    room = side - 2 * margin
    while True:
        font = load_font(size, font_path)
        # Wrapping takes long, and a text that is too long when laid end to end needs none.
        if font.getlength("".join(title.split())) / room * _line_height(font) <= room:
            lines = [*wrap_text(title, font, room), *(f"{number}." for number in range(1, items + 1))]
            if _line_height(font) * len(lines) <= room:
                break
        if size <= _SMALLEST_FONT:
            raise InputError(f"a text of {len(title):,} characters does not fit on an image; shorten it")
        size = max(_SMALLEST_FONT, size - 4)
    image = Image.new("RGB", (side, side), "white")
    draw = ImageDraw.Draw(image)
    for number, line in enumerate(lines):
        # A thin outline in the text's colour stands in for a bold face, which Pillow does not ship.
        position = (margin, margin + number * _line_height(font))
        draw.text(position, line, font=font, fill="black", stroke_width=round(size / 40), stroke_fill="black")
    return image


def _line_height(font: ImageFont.FreeTypeFont) -> int:
    """Return the distance between two base lines in pixels."""
    ascent, descent = font.getmetrics()
    return ascent + descent


def _cut_word(word: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Cut a word into parts that fit a line; every part has at least one character."""
    parts = [""]
    for character in word:
        if parts[-1] and font.getlength(parts[-1] + character) > width:
            parts.append(character)
        else:
            parts[-1] += character
    return parts
