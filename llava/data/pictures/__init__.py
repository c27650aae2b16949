"""Synthetic pictures without limit: rendered words and coloured shapes, with what a reader should find in them.

They train and measure the shipped vision tower (docs/vision_tower.md). A picture carries its text line by line with
the place of every letter, so a tower can be taught where to say what, and questions with their answers.
"""

from llava.data.pictures.fonts import Typeface, find_typefaces
from llava.data.pictures.records import Line, Picture, Thing, soft_caption
from llava.data.pictures.scenes import MAKERS, make_picture
from llava.data.pictures.shapes import COLOURS, NUMBERS, SHAPES, plural
from llava.data.pictures.vocabulary import Vocabulary, load_vocabulary

__all__ = [
    "COLOURS",
    "MAKERS",
    "NUMBERS",
    "SHAPES",
    "Line",
    "Picture",
    "Thing",
    "Typeface",
    "Vocabulary",
    "find_typefaces",
    "load_vocabulary",
    "make_picture",
    "plural",
    "soft_caption",
]
