"""Rarer forms of images come out with the pixels that a viewer shows: deep ones, transparent ones, several in one."""

from __future__ import annotations

import io
import struct
import zlib

import pytest
from PIL import Image, ImageSequence, features
from PIL.PngImagePlugin import PngInfo

from llava.data.images import check_image, open_image
from llava.errors import InputError

GREY, RGB, GREY_ALPHA, RGBA = 0, 2, 4, 6
"""Colour types of a PNG, as its header has them."""
SHADES = (0, 1000, 0x8000, 65535)
"""Four values of 16 bits from black to white; the upper eight bits of each are what is shown."""
SHOWN = [(0, 0, 0), (3, 3, 3), (128, 128, 128), (255, 255, 255)]
WHITE = (255, 255, 255)


def png(colour: int, pixels: list[tuple[int, ...]], key: tuple[int, ...] = (), bits: int = 16) -> bytes:
    """Return a PNG of one row; `key` is the colour that its tRNS chunk makes transparent.

    Pillow writes neither colours of 16 bits nor a tRNS chunk beside them.
    """

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = b"\0" + b"".join(value.to_bytes(bits // 8, "big") for pixel in pixels for value in pixel)
    header = struct.pack(">IIBBBBB", len(pixels), 1, bits, colour, 0, 0, 0)
    parts = [(b"IHDR", header), *([(b"tRNS", struct.pack(f">{len(key)}H", *key))] if key else [])]
    parts += [(b"IDAT", zlib.compress(row)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, data) for kind, data in parts)


def shown(path) -> list[tuple[int, ...]]:
    """Return the pixels of an image's first row, once it has passed the check."""
    check_image(path)
    image = open_image(path)
    assert image.mode == "RGB"
    return [image.getpixel((place, 0)) for place in range(image.width)]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (png(GREY, [(shade,) for shade in SHADES]), SHOWN),
        (png(GREY, [(shade,) for shade in SHADES], key=(0,)), [WHITE, *SHOWN[1:]]),
        (png(GREY, [(shade,) for shade in SHADES], key=(1000,)), [SHOWN[0], WHITE, *SHOWN[2:]]),
        # 1001 is another grey than 1000, though both look the same.
        (png(GREY, [(shade,) for shade in SHADES], key=(1001,)), SHOWN),
        (png(GREY_ALPHA, [(shade, 65535) for shade in SHADES]), SHOWN),
        (png(GREY_ALPHA, [(0, 0), (0, 65535), (0, 0x8000)]), [WHITE, (0, 0, 0), (127, 127, 127)]),
        (png(RGB, [(0, 0x8000, 65535), (1000, 0, 0)]), [(0, 128, 255), (3, 0, 0)]),
        (png(RGB, [(0x8000, 0, 0), (0, 0, 0)], key=(0x8000, 0, 0)), [WHITE, (0, 0, 0)]),
        (png(RGB, [(0, 0, 0), (0x8000, 0, 0)], key=(0, 0, 0)), [WHITE, (128, 0, 0)]),
        (png(RGBA, [(65535, 0, 0, 65535), (0, 0, 0, 0)]), [(255, 0, 0), WHITE]),
    ],
)
def test_png_of_sixteen_bits(tmp_path, data, expected):
    (tmp_path / "a.png").write_bytes(data)
    assert shown(tmp_path / "a.png") == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (png(GREY, [(0,), (64,), (255,)], key=(0,), bits=8), [WHITE, (64, 64, 64), WHITE]),
        (png(RGB, [(0, 0, 0), (1, 0, 0)], key=(0, 0, 0), bits=8), [WHITE, (1, 0, 0)]),
    ],
)
def test_the_transparent_colour_of_a_png_of_eight_bits_becomes_white(tmp_path, data, expected):
    (tmp_path / "a.png").write_bytes(data)
    assert shown(tmp_path / "a.png") == expected


def test_grey_with_alpha_lies_on_white(tmp_path):
    picture = Image.new("LA", (3, 1), (0, 255))
    picture.putpixel((1, 0), (0, 0))
    picture.putpixel((2, 0), (0, 128))
    picture.save(tmp_path / "a.png")
    assert shown(tmp_path / "a.png") == [(0, 0, 0), WHITE, (127, 127, 127)]


def test_a_remark_named_transparency_makes_nothing_transparent(tmp_path):
    info = PngInfo()
    info.add_text("transparency", "none")
    Image.new("RGB", (1, 1), "gray").save(tmp_path / "a.png", pnginfo=info)
    assert shown(tmp_path / "a.png") == [(128, 128, 128)]


@pytest.mark.parametrize("most", [1023, 65535])
def test_colours_of_a_ppm_of_more_than_eight_bits_are_scaled(tmp_path, most):
    values = [round(most * place / 255) for place in range(256)]
    pixels = b"".join(struct.pack(">3H", value, most - value, most) for value in values)
    (tmp_path / "a.ppm").write_bytes(f"P6\n256 1\n{most}\n".encode() + pixels)
    assert shown(tmp_path / "a.ppm") == [
        (pytest.approx(place, abs=1), pytest.approx(255 - place, abs=1), 255) for place in range(256)
    ]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mpo", {}),
        ("a.gif", {"duration": 50, "loop": 0}),
        ("a.webp", {"duration": 50, "loop": 0, "lossless": True}),
    ],
)
def test_of_several_pictures_in_a_file_the_first_is_taken(tmp_path, name, options):
    first, *others = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "lime")]
    first.save(tmp_path / name, save_all=True, append_images=others, **options)
    with Image.open(tmp_path / name) as image:
        assert len(list(ImageSequence.Iterator(image))) == 3
    # A camera's MPO is named as a JPEG.
    if name == "a.mpo":
        name = (tmp_path / name).rename(tmp_path / "a.jpg").name
    assert shown(tmp_path / name) == [pytest.approx((255, 0, 0), abs=2)] * 8


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("tail", [b"\0" * 100, b"<html>", b"PK\x03\x04" + b"x" * 5000])
def test_bytes_behind_an_image_are_ignored(tmp_path, suffix, tail):
    Image.new("RGB", (8, 8), "red").save(tmp_path / f"a{suffix}")
    with (tmp_path / f"a{suffix}").open("ab") as stream:
        stream.write(tail)
    assert shown(tmp_path / f"a{suffix}") == [pytest.approx((255, 0, 0), abs=2)] * 8


@pytest.mark.parametrize("check", [open_image, check_image])
@pytest.mark.parametrize("kind", ["TIFF", "AVIF"])
def test_formats_that_stay_out_are_refused_in_one_line(tmp_path, check, kind):
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow writes no AVIF")
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(stream, kind)
    # Whatever the file is called: the content decides.
    for name in ("a.png", f"a.{kind.lower()}"):
        (tmp_path / name).write_bytes(stream.getvalue())
        with pytest.raises(InputError) as raised:
            check(tmp_path / name)
        assert str(raised.value) == f"image {tmp_path / name} is not a readable image; save it as JPEG, PNG or WebP"
