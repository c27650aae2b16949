"""Targets of the vision tower: which cell says which token."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers import LlavaImageProcessorPil

from llava.data.pictures import MAKERS, Line, Picture, Thing, Vocabulary, find_typefaces
from llava.data.typography import render_numbered_list, render_typo
from llava.train.vision.reader import normalised
from llava.train.vision.targets import BLANK, LETTERS, TargetBuilder, TokenClasses, spread, square_pixels
from tests.tiny import build_tokenizer

WORDS = Vocabulary(("bread", "water", "first", "image"))


@pytest.fixture(scope="module")
def classes():
    return TokenClasses(build_tokenizer(), WORDS)


def line(text: str, y: float, left: float = 0.0, pitch: float = 10.0) -> Line:
    return Line(text, y, tuple(left + pitch * number for number in range(len(text) + 1)))


def test_tokens_lie_in_the_cells_of_their_middles(classes):
    picture = Picture(Image.new("RGB", (200, 200), "white"), [line("bread", 50, left=100), line("water first", 150)])
    tokens, letters = TargetBuilder(classes, side=40, grid=20).targets(picture)
    grid = tokens.reshape(20, 20)
    assert classes.decode(tokens.tolist()) == "bread water first"
    assert sorted(set(np.nonzero(grid != BLANK)[0].tolist())) == [5, 15]
    upper = np.flatnonzero(grid[5] != BLANK)
    assert 10 <= upper[0] <= upper[-1] < 15
    said = [LETTERS[number - 1] for number in letters[10] if number]
    assert "".join(said) == "bread"
    assert np.flatnonzero(letters[10]).tolist() == [21, 23, 25, 27, 29][: len(said)] or len(said) == 5


def test_the_order_is_that_of_the_text(classes):
    builder = TargetBuilder(classes, side=40, grid=12)
    rng, faces = random.Random(4), find_typefaces(["Aileron"])
    found = 0
    for kind in ("phrase", "list", "attack", "captioned"):
        for _ in range(10):
            picture = MAKERS[kind](rng, WORDS, faces)
            targets = builder.targets(picture)
            if targets is None:
                continue
            found += 1
            said = classes.decode(targets[0].tolist()).split()
            assert said[len(said) - len(picture.text.split()) :] == picture.text.split()
    assert found > 10


def test_shapes_are_said_where_they_are(classes):
    picture = Picture(
        Image.new("RGB", (160, 80)),
        [line("bread", 70, pitch=5)],
        things=[Thing("red star", 25, 5), Thing("blue", 159, 25)],
    )
    tokens, letters = TargetBuilder(classes, side=160, grid=16).targets(picture)
    rows = tokens.reshape(16, 16)  # cells of ten pixels, under a margin of four rows
    assert classes.decode(rows[4].tolist()) == "red star"
    assert np.flatnonzero(rows[4] != BLANK)[0] == 2
    assert classes.decode(rows[6].tolist()) == "blue"
    assert np.flatnonzero(rows[6] != BLANK)[-1] == 15
    assert classes.decode(rows[11].tolist()) == "bread"
    assert not letters[:20].any(), "a shape has no letters"


def test_shapes_that_cannot_be_told_apart_are_left_out(classes):
    close = [Thing("red star", 50, 50), Thing("red star", 52, 51)]
    below = Picture(Image.new("RGB", (100, 100)), [line("bread", 50, pitch=5)], things=[Thing("red star", 12, 50)])
    builder = TargetBuilder(classes, side=160, grid=16)
    assert builder.targets(Picture(Image.new("RGB", (100, 100)), things=close)) is None
    assert builder.targets(below) is None
    assert builder.targets(Picture(below.image, things=[Thing("\N{SNOWMAN}", 50, 50)])) is None


def test_a_text_that_does_not_fit_is_left_out(classes):
    image = Image.new("RGB", (100, 100))
    crowded = Picture(image, [line("bread", 5.0 + 3 * number) for number in range(5)])
    unknown = Picture(image, [line("\N{SNOWMAN}", 50)])
    fitting = Picture(image, [line("one", 50)])
    builder = TargetBuilder(classes, side=40, grid=4)
    assert builder.targets(crowded) is None
    assert classes.encode("\N{SNOWMAN}") is None
    assert builder.targets(unknown) is None
    batch = builder.batch([crowded, fitting, unknown, fitting, fitting], size=2)
    assert batch.pixels.shape == (2, 3, 40, 40)
    assert batch.pixels.dtype == torch.uint8
    assert batch.tokens.shape == (2, 16)
    assert batch.letters.shape == (2, 8, 8)
    assert batch.pictures == [fitting, fitting]


@given(st.lists(st.floats(0, 11.9), max_size=14))
def test_places_rise_and_stay_inside(wanted):
    wanted = sorted(wanted)
    places = spread(wanted, 12)
    if len(wanted) > 12:
        assert places is None
        return
    assert all(low < high for low, high in itertools.pairwise(places))
    assert all(0 <= place < 12 for place in places)
    if all(int(low) < int(high) for low, high in itertools.pairwise(wanted)):
        assert places == [int(position) for position in wanted]


@pytest.mark.parametrize(
    "image",
    [
        render_typo("a borrowed bicycle"),
        render_numbered_list("Steps to bake bread."),
        Image.new("RGB", (30, 77), "red"),
    ],
    ids=["wide", "square", "high"],
)
def test_pixels_are_those_of_llavas_image_processor(image):
    square = {"height": 160, "width": 160}
    processor = LlavaImageProcessorPil(do_pad=True, do_center_crop=False, size=square, crop_size=square)
    theirs = processor(image, return_tensors="pt")["pixel_values"]
    ours = normalised(torch.from_numpy(square_pixels(image, 160).copy()).permute(2, 0, 1)[None])
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
