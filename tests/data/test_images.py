from __future__ import annotations

import io
import re
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFile, ImageOps
from PIL.PngImagePlugin import PngInfo

from llava.data import images
from llava.data.images import check_image, check_images, decode_image, find_image, open_image, save_png
from llava.errors import InputError
from tests.data.layouts import save_image


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".gif", ".ppm"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_open_image_gives_rgb(tmp_path, suffix, mode):
    Image.new(mode, (20, 10), 255 if mode == "L" else "white").save(tmp_path / f"a{suffix}")
    image = open_image(tmp_path / f"a{suffix}")
    assert (image.mode, image.size) == ("RGB", (20, 10))
    assert min(image.getpixel((3, 3))) > 250


@pytest.mark.parametrize(("suffix", "mode"), [(".png", "1"), (".png", "P"), (".jpg", "CMYK")])
def test_other_colour_modes_become_rgb(tmp_path, suffix, mode):
    Image.new("RGB", (8, 8), "white").convert(mode).save(tmp_path / f"a{suffix}")
    image = open_image(tmp_path / f"a{suffix}")
    assert image.mode == "RGB"
    assert min(image.getpixel((3, 3))) > 250


def test_transparency_becomes_white_so_that_black_text_stays_readable(tmp_path):
    picture = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    picture.putpixel((1, 1), (0, 0, 0, 255))
    picture.save(tmp_path / "a.png")
    picture.quantize(4).save(tmp_path / "palette.png")
    for name in ("a.png", "palette.png"):
        image = open_image(tmp_path / name)
        assert image.getpixel((0, 0)) == (255, 255, 255)
        assert max(image.getpixel((1, 1))) < 10


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path):
    Image.new("I;16", (2, 2), 0x8000).save(tmp_path / "a.png")
    assert open_image(tmp_path / "a.png").getpixel((0, 0)) == (128, 128, 128)


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Image.new("RGB", (30, 10), "red").save(tmp_path / "a.jpg", exif=exif)
    assert open_image(tmp_path / "a.jpg").size == (10, 30)


def test_returned_image_holds_no_file(tmp_path):
    path = save_image(tmp_path / "a.png", "blue")
    image = open_image(path)
    path.unlink()
    assert image.getpixel((0, 0)) == (0, 0, 255)


@pytest.mark.parametrize("check", [open_image, check_image])
def test_missing_image_is_named(tmp_path, check):
    with pytest.raises(InputError, match=r"image .*none\.png does not exist; check the path"):
        check(tmp_path / "none.png")


@pytest.mark.parametrize("check", [open_image, check_image])
def test_folder_is_no_image(tmp_path, check):
    with pytest.raises(InputError, match="is not a file"):
        check(tmp_path)


@pytest.mark.parametrize("check", [open_image, check_image])
@pytest.mark.parametrize(
    "content", [b"", b"this is text", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n", b"II*\x00\x08\x00\x00\x00"]
)
def test_what_is_no_image_is_refused(tmp_path, check, content):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(InputError, match="not a readable image"):
        check(tmp_path / "a.jpg")


@pytest.mark.parametrize("check", [open_image, check_image])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize("lenient", [False, True], ids=["", "a_library_lets_them_pass"])
def test_truncated_image_is_refused(tmp_path, monkeypatch, check, suffix, lenient):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", lenient)
    path = tmp_path / f"a{suffix}"
    Image.effect_noise((200, 200), 90).convert("RGB").save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=r"a\.\w+ is .*(damaged or truncated|not a readable)") as raised:
        check(path)
    assert "\n" not in str(raised.value)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is lenient


def test_threads_refuse_truncated_images_together(tmp_path, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    whole, half = tmp_path / "whole.png", tmp_path / "half.png"
    Image.effect_noise((100, 100), 90).save(whole)
    half.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])

    def read(path):
        try:
            return open_image(path).size
        except InputError:
            return None

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(read, [whole, half] * 40)) == [(100, 100), None] * 40
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


@pytest.mark.parametrize("check", [open_image, check_image])
@pytest.mark.parametrize("side", [7_100, 30_000])
def test_decompression_bomb_is_refused_before_decoding(tmp_path, check, side):
    (tmp_path / "bomb.png").write_bytes(png_header(side, side))
    with pytest.raises(InputError, match=r"bomb\.png has .*pixels.*scale it down"):
        check(tmp_path / "bomb.png")


def test_large_file_is_refused_unread(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "MAX_IMAGE_BYTES", 2**20)
    with (tmp_path / "a.png").open("wb") as stream:
        stream.truncate(2**20 + 1)
    with pytest.raises(InputError, match="larger than 1 MiB"):
        open_image(tmp_path / "a.png")


@given(st.binary(max_size=400), st.sampled_from(["JPEG", "PNG", "GIF", "BMP", "WEBP", "PPM"]), st.integers(0, 200))
def test_any_bytes_are_an_image_or_an_input_error(noise, kind, keep):
    stream = io.BytesIO()
    Image.new("RGB", (12, 9), "green").save(stream, kind)
    data = stream.getvalue()[:keep] + noise
    assert decode_or_say(data) == "RGB" or re.fullmatch("image upload .*; .*", decode_or_say(data))


def decode_or_say(data: bytes) -> str:
    try:
        return decode_image(io.BytesIO(data), "upload").mode
    except InputError as error:
        return str(error)


def test_check_images_names_the_first_bad_one_in_order(tmp_path):
    good = [save_image(tmp_path / f"{number}.png") for number in range(20)]
    (tmp_path / "bad-1.png").write_bytes(b"no")
    (tmp_path / "bad-2.png").write_bytes(b"no")
    with pytest.raises(InputError, match=r"bad-1\.png"):
        check_images([*good, tmp_path / "bad-1.png", *good, tmp_path / "bad-2.png"])
    check_images(good)
    check_images([])


def test_find_image_takes_the_ending_that_is_there(tmp_path):
    assert find_image(tmp_path, "7") == tmp_path / "7.jpg"
    save_image(tmp_path / "7.png")
    assert find_image(tmp_path, "7") == tmp_path / "7.png"
    save_image(tmp_path / "7.jpeg")
    assert find_image(tmp_path, "7") == tmp_path / "7.jpeg"


def test_save_png_leaves_no_temporary_file_and_names_an_unwritable_folder(tmp_path):
    save_png(Image.new("RGB", (3, 3)), tmp_path / "new" / "a.png")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.png"]
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        save_png(Image.new("RGB", (3, 3)), tmp_path / "file" / "a.png")


def ramp(bits: int, plain: bool = False) -> bytes:
    """A grey ramp over the whole range of a PGM, 256 pixels wide."""
    most = 2**bits - 1
    values = [round(most * place / 255) for place in range(256)]
    header = f"{'P2' if plain else 'P5'}\n256 1\n{most}\n".encode()
    return header + (" ".join(map(str, values)).encode() if plain else b"".join(v.to_bytes(2, "big") for v in values))


@pytest.mark.parametrize("bits", [9, 12, 16])
@pytest.mark.parametrize("plain", [False, True])
def test_greys_of_more_than_eight_bits_are_scaled(bits, plain):
    image = decode_image(io.BytesIO(ramp(bits, plain)), "ramp")
    assert [image.getpixel((place, 0))[0] for place in range(256)] == pytest.approx(list(range(256)), abs=1)


def test_floating_point_pixels_are_refused():
    with pytest.raises(InputError, match="has floating-point pixels, whose range is not known"):
        decode_image(io.BytesIO(b"Pf\n2 1\n-1.0\n" + struct.pack("<2f", 0.2, 0.8)), "a.pfm")


def exif_with_rational(orientation: int, type_: int) -> bytes:
    """An EXIF block with an orientation, and a rational -1/0 as resolution."""
    entries = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0) + struct.pack("<HHII", 0x011A, type_, 1, 38)
    block = b"II*\x00" + struct.pack("<I", 8) + struct.pack("<H", 2) + entries + struct.pack("<I", 0)
    return b"Exif\x00\x00" + block + struct.pack("<ii", -1, 0)


@pytest.mark.parametrize("type_", [5, 10])
def test_a_bad_rational_in_exif_takes_no_image_away(tmp_path, type_):
    Image.new("RGB", (30, 10), "red").save(tmp_path / "a.jpg", exif=exif_with_rational(6, type_))
    check_image(tmp_path / "a.jpg")
    assert open_image(tmp_path / "a.jpg").size == (10, 30)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_as_pillow_turns_it(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.effect_noise((31, 17), 90).convert("RGB").save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        assert open_image(tmp_path / "a.png").tobytes() == ImageOps.exif_transpose(image).tobytes()


def test_text_beside_the_pixels_is_named_for_what_it_is(tmp_path):
    info = PngInfo()
    info.add_text("note", "x" * 5_000_000, zip=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png", pnginfo=info)
    for check in (check_image, open_image):
        with pytest.raises(InputError, match=r"a\.png holds text beside its pixels, of more than 1 MiB"):
            check(tmp_path / "a.png")


def test_warnings_of_the_decoder_stay_off_the_terminal(tmp_path):
    Image.new("RGB", (30, 10), "red").save(tmp_path / "a.jpg", exif=b"Exif\x00\x00II*\x00\x08\x00\x00\x00\xff\xff")
    code = f"from llava.data.images import check_image, open_image as o; p = {str(tmp_path / 'a.jpg')!r}"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; check_image(p); print(o(p).size)"], capture_output=True, text=True, check=True
    )
    assert (done.stdout.strip(), done.stderr) == ("(30, 10)", "")


def test_damage_in_the_middle_of_a_jpeg_shows_in_the_check_as_it_does_when_it_is_opened(tmp_path):
    stream = io.BytesIO()
    Image.effect_noise((200, 200), 90).convert("RGB").save(stream, "JPEG")
    whole = stream.getvalue()
    # The tables are lost, the end mark is there.
    (tmp_path / "a.jpg").write_bytes(whole[:60] + b"\xff\xd9")
    for check in (check_image, open_image):
        with pytest.raises(InputError, match=r"a\.jpg is"):
            check(tmp_path / "a.jpg")


@pytest.mark.parametrize("name", ["x" * 300 + ".png", "a\0b.png"])
def test_names_that_no_file_has(tmp_path, name):
    with pytest.raises(InputError, match="does not exist"):
        open_image(tmp_path / name)


def test_find_image_knows_capitals_and_stays_in_its_folder(tmp_path):
    save_image(tmp_path / "images" / "7.png").rename(tmp_path / "images" / "7.PNG")
    assert find_image(tmp_path / "images", "7") == tmp_path / "images" / "7.PNG"
    save_image(tmp_path / "8.jpg")
    for stem in ("../8", "..", "/etc/passwd", "x" * 300, "a\0b", ""):
        assert find_image(tmp_path / "images", stem).parent == tmp_path / "images"
