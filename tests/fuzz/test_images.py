"""Image files, damaged: what the check lets through opens, everything else is refused by one line."""

import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from llava.data.images import check_image, decode_image, find_image, open_image
from tests.data.test_images import exif_with_rational, ramp
from tests.fuzz.support import cells, check_parser, damaged, fuzz, write


def encode(kind: str, mode: str = "RGB", **options) -> bytes:
    """A small noisy image."""
    stream = io.BytesIO()
    Image.effect_noise((24, 17), 90).convert(mode).save(stream, kind, **options)
    return stream.getvalue()


def with_text() -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_text("note", "x" * 3000, zip=True)
    return encode("PNG", pnginfo=info)


VALID = [
    encode("JPEG", exif=exif_with_rational(6, 10)),
    encode("JPEG", "CMYK"),
    encode("JPEG", progressive=True),
    encode("PNG", "RGBA"),
    encode("PNG", "P"),
    encode("PNG", "I;16") if "I;16" in Image.MODES else encode("PNG", "L"),
    with_text(),
    encode("WEBP", "RGBA"),
    encode("WEBP", lossless=True, exif=exif_with_rational(3, 5)),
    encode("GIF", "P"),
    encode("BMP"),
    encode("BMP", "1"),
    encode("PPM"),
    ramp(12),
    ramp(9, plain=True),
    b"Pf\n2 1\n-1.0\n" + struct.pack("<2f", 0.2, 0.8),
]


def check(image):
    assert image.mode == "RGB"
    assert min(image.size) > 0


@pytest.mark.filterwarnings("ignore::UserWarning")
@fuzz
@given(content=st.sampled_from(VALID).flatmap(damaged))
def test_damaged_images(tmp_path, content):
    path = write(tmp_path, "a.img", content)
    passed = check_parser(lambda: check_image(path) is None)
    opened = check_parser(lambda: open_image(path), check)
    # Of a JPEG that ends with its end marker the check reads the header alone.
    assert opened is not None or not passed or (content.startswith(b"\xff\xd8") and content.endswith(b"\xff\xd9"))
    check_parser(lambda: decode_image(io.BytesIO(content), "upload"), check)


@fuzz
@given(stem=cells | st.text(max_size=300))
def test_stems_of_images(tmp_path, stem):
    (tmp_path / "images").mkdir(exist_ok=True)
    (tmp_path / "x.jpg").write_bytes(b"")
    assert find_image(tmp_path / "images", stem).parent == tmp_path / "images"
