"""Synthetic pictures: what is said about a picture is what is on it."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.data.pictures import COLOURS, MAKERS, NUMBERS, Vocabulary, find_typefaces, load_vocabulary, make_picture
from llava.data.pictures.questions import ASKERS, ask
from llava.data.pictures.records import Picture
from llava.data.pictures.shapes import draw_shapes
from llava.data.pictures.text import Style, draw_lines, wrap
from llava.errors import InputError

WORDS = Vocabulary(("bread", "river", "stone", "yellow", "a", "mountain"), ("quartz",), 0.2)
FACES = find_typefaces(["Aileron"])


@pytest.mark.parametrize("kind", MAKERS)
def test_the_same_seed_makes_the_same_picture(kind):
    first, second = (MAKERS[kind](random.Random(5), WORDS, FACES) for _ in range(2))
    assert first.image.tobytes() == second.image.tobytes()
    assert (first.lines, first.captions) == (second.lines, second.captions)


@pytest.mark.parametrize("kind", MAKERS)
def test_text_and_shapes_are_on_the_picture(kind):
    rng = random.Random(3)
    for _ in range(30):
        picture = MAKERS[kind](rng, WORDS, FACES)
        assert picture.image.mode == "RGB"
        assert bool(picture.lines) == (kind != "shapes")
        assert bool(picture.groups) == (kind in ("shapes", "captioned"))
        assert len(picture.captions) == len(picture.groups)
        heights = [line.y for line in picture.lines]
        assert heights == sorted(heights)
        for line in picture.lines:
            assert len(line.edges) == len(line.text) + 1
            assert 0 <= line.y <= picture.image.height
            assert line.edges[0] > -2
            assert line.edges[-1] < picture.image.width * 1.02


def test_ink_lies_where_the_letters_are_said_to_be():
    image = Picture(MAKERS["shapes"](random.Random(0), WORDS, FACES).image.resize((300, 100))).image
    image.paste((255, 255, 255), (0, 0, 300, 100))
    style = Style(FACES[0], 30, (0, 0, 0), 1.2)
    [line] = draw_lines(image, ["bread stone"], style, 20, 10, 260)
    ink = np.asarray(image.convert("L")) < 128
    columns = np.flatnonzero(ink.any(axis=0))
    assert abs(columns[0] - line.edges[0]) < 4
    assert abs(columns[-1] - line.edges[-1]) < 4
    rows = np.flatnonzero(ink.any(axis=1))
    assert rows[0] < line.y < rows[-1]
    space = line.text.index(" ")
    assert not ink[:, round(line.edges[space]) + 1 : round(line.edges[space + 1]) - 1].any()


def test_everything_is_said_in_small_letters():
    image = MAKERS["shapes"](random.Random(0), WORDS, FACES).image
    style = Style(FACES[0], 12, (0, 0, 0), 1.2)
    lines = draw_lines(image, ["STOP", "Go I"], style, 0, 0, 100)
    assert [line.text for line in lines] == ["stop", "go i"]


@given(st.lists(st.sampled_from(WORDS.common), min_size=1, max_size=12), st.integers(60, 300))
def test_wrapping_keeps_words_and_width(words, width):
    style = Style(FACES[0], 14, (0, 0, 0), 1.2)
    lines = wrap(words, style, width)
    assert " ".join(lines).split() == [word for word in words if style.width(word) <= width]
    assert all(style.width(line) <= width for line in lines)


def test_as_many_shapes_are_drawn_as_are_told():
    rng = random.Random(11)
    for _ in range(60):
        image, groups, things = draw_shapes(rng, 200, 200)
        pixels = np.asarray(image).astype(int)
        assert len({group[1] for group in groups}) == len({group[2] for group in groups}) == len(groups)
        assert Counter(thing.name for thing in things) == {f"{colour} {shape}": n for n, colour, shape in groups}
        for thing in things:
            shade = np.array(COLOURS[thing.name.split()[0]])
            assert np.abs(pixels[round(thing.y), round(thing.x)] - shade).max() <= 10
        for number, colour, _ in groups:
            distance = np.abs(pixels - np.array(COLOURS[colour])).max(axis=2)
            assert count_regions(distance <= 10) == number


def count_regions(mask: np.ndarray) -> int:
    """Count connected regions of some size by flooding."""
    seen, regions = np.zeros_like(mask), 0
    for start in zip(*np.nonzero(mask), strict=True):
        if seen[start]:
            continue
        size, stack = 0, [start]
        seen[start] = True
        while stack:
            y, x = stack.pop()
            size += 1
            for place in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
                inside = 0 <= place[0] < mask.shape[0] and 0 <= place[1] < mask.shape[1]
                if inside and mask[place] and not seen[place]:
                    seen[place] = True
                    stack.append(place)
        regions += size > 20
    return regions


def test_questions_have_the_answers_of_the_picture():
    picture = Picture(MAKERS["shapes"](random.Random(0), WORDS, FACES).image)
    picture.groups, picture.captions = [(2, "red", "cross")], ["two red crosses"]
    rng = random.Random(0)
    assert ASKERS["number"](rng, picture)[1] == "two"
    assert ASKERS["shape"](rng, picture) == ("What shape is red?", "cross")
    question, answer = ASKERS["colour"](rng, picture)
    assert (question.endswith("are the crosses?"), answer) == (True, "red")
    assert ASKERS["describe"](rng, picture)[1] == "two red crosses"
    kinds = {ask(rng, MAKERS["captioned"](rng, WORDS, FACES))[0] for _ in range(80)}
    assert kinds == set(ASKERS)
    assert {ask(rng, MAKERS["list"](rng, WORDS, FACES))[0] for _ in range(5)} == {"read"}


def test_the_mixture_decides_the_kinds():
    rng = random.Random(1)
    pictures = [make_picture(rng, {"shapes": 1.0, "list": 0.0}, WORDS, FACES) for _ in range(10)]
    assert all(picture.groups and not picture.lines for picture in pictures)


def test_rare_words_take_their_share():
    rng = random.Random(2)
    drawn = [WORDS.draw(rng) for _ in range(500)]
    assert 50 < drawn.count("quartz") < 150


def test_missing_typefaces_are_named():
    with pytest.raises(InputError, match="typeface NoSuchFace is not installed"):
        find_typefaces(["Aileron", "NoSuchFace"])


def test_a_folder_of_typefaces_is_searched_first(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "Mine.ttf").write_bytes(b"")
    [face] = find_typefaces(["Mine"], [tmp_path])
    assert face.path == tmp_path / "deep" / "Mine.ttf"


def test_the_vocabulary_is_plain_and_ranked():
    pytest.importorskip("wordfreq")
    vocabulary = load_vocabulary(3000, 100, 0.1)
    assert len(vocabulary.common) == 3000
    assert len(vocabulary.rare) == 100
    assert {"the", "a", "people", "water"} <= set(vocabulary.common)
    assert not set(vocabulary.common) & set(vocabulary.rare)
    assert all(word.isascii() and word.isalpha() and word.islower() for word in vocabulary.common)
    assert set(NUMBERS) <= set(vocabulary.common)
