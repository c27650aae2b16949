from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from llava.data.typography import load_font, render_numbered_list, render_sd_typo, render_typo, wrap_text
from llava.errors import InputError


def ink(image: Image.Image) -> np.ndarray:
    """Boolean map of the dark pixels, (height, width)."""
    return np.asarray(image.convert("L")) < 128


@given(st.text(max_size=60), st.integers(30, 300))
@settings(deadline=None)
def test_wrapping_keeps_every_character_and_the_width(text, width):
    font = load_font(20)
    lines = wrap_text(text, font, width)
    assert "".join("".join(lines).split()) == "".join(text.split())
    assert all(font.getlength(line) <= width or len(line) == 1 for line in lines)


def test_wrapping_breaks_between_words_first():
    font = load_font(20)
    assert wrap_text("one two", font, round(font.getlength("one two"))) == ["one two"]
    assert wrap_text("one two", font, round(font.getlength("one two")) - 2) == ["one", "two"]
    assert wrap_text("  ", font, 100) == [""]


@given(st.text(max_size=40))
@settings(deadline=None, max_examples=40)
def test_any_text_is_drawn(text):
    assert render_typo(text, width=128).width == 128
    assert render_numbered_list(text, side=96).size == (96, 96)


def test_lone_surrogates_and_other_scripts_do_not_crash():
    render_typo("a \ud800 漢字 🙂 \x00")


def test_typo_is_black_on_white_and_centred():
    image = render_typo("key phrase")
    columns = np.flatnonzero(ink(image).any(axis=0))
    left, right = columns[0], image.width - 1 - columns[-1]
    assert image.getpixel((0, 0)) == (255, 255, 255)
    assert abs(left - right) < 20


def test_typo_grows_with_the_text_and_stays_inside_the_image():
    short, long = render_typo("phrase"), render_typo("a phrase that needs more than one line of the image")
    assert long.height > short.height
    for image in (short, long):
        dark = ink(image)
        assert dark.any()
        assert not dark[0].any()
        assert not dark[-1].any()
        assert not dark[:, 0].any()
        assert not dark[:, -1].any()


def test_sd_typo_keeps_the_scene_above_the_phrase():
    scene = Image.new("RGB", (200, 150), "red")
    image = render_sd_typo(scene, "a phrase")
    assert image.crop((0, 0, 200, 150)).tobytes() == scene.tobytes()
    assert ink(image.crop((0, 150, 200, image.height))).any()


def count_lines(image: Image.Image) -> int:
    """Number of text lines, counted as runs of rows with ink in the leftmost tenth."""
    rows = ink(image)[:, : image.width // 10].any(axis=1)
    return int(np.count_nonzero(np.diff(rows.astype(int)) == 1))


def test_numbered_list_shows_title_and_empty_items():
    image = render_numbered_list("Lists")
    assert image.size == (760, 760)
    assert count_lines(image) == 4
    # Behind the numbers there is nothing.
    last = np.flatnonzero(ink(image).any(axis=1))[-1]
    assert not ink(image)[last - 20 :, 120:].any()


def test_numbered_list_shrinks_a_long_title_until_all_is_visible():
    long = render_numbered_list("words and more words " * 25)
    dark = ink(long)
    assert not dark[-5:].any()
    assert count_lines(long) > 8


def test_rendering_is_deterministic():
    assert render_typo("the same").tobytes() == render_typo("the same").tobytes()
    assert render_numbered_list("the same").tobytes() == render_numbered_list("the same").tobytes()
    assert render_typo("the same").tobytes() != render_typo("another").tobytes()


def test_font_path_is_used_and_a_bad_one_named(tmp_path):
    (tmp_path / "bad.ttf").write_bytes(b"no font")
    for path in (tmp_path / "bad.ttf", tmp_path / "none.ttf"):
        with pytest.raises(InputError, match=rf"font .*{path.name} cannot be read"):
            render_typo("text", font_path=path)
    builtin = tmp_path / "builtin.ttf"
    builtin.write_bytes(load_font(20).font_bytes)
    assert render_typo("text", font_path=builtin).tobytes() == render_typo("text").tobytes()
