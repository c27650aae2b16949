"""Opening images safely: every decoder limit and every message about a bad image is decided here."""

from __future__ import annotations

import io
import os
import tempfile
import threading
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from llava.errors import InputError
from llava.places import file_exists, to_file_name

MAX_IMAGE_PIXELS = 50_000_000
"""Largest image that is decoded, in pixels (about 8,000 × 6,000): beyond it a small file can fill the memory."""

MAX_IMAGE_BYTES = 64 * 1024 * 1024
"""Largest image file that is read, in bytes."""

IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "PPM")
"""Formats that are decoded. Others stay out: EPS would start an outside program, TIFF has a long history of holes."""

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
"""File name endings that benchmark images come with, in the order in which they are looked for."""

_CHECK_THREADS = 8

# Pillow registers its decoders on first need, and threads that come too early do not find them.
Image.init()

# What Pillow warns of (a corrupt EXIF block, say) is either mended here or refused; a terminal is no place for it.
warnings.filterwarnings("ignore", module=r"PIL\.")


def open_image(path: str | Path) -> Image.Image:
    """Open an image file, fully decoded, upright and in RGB.

    The camera's EXIF orientation is applied. Transparent parts become white, so that black text on a transparent
    ground stays readable. Of an animation the first frame is taken.

    Args:
        path: Image file (see `IMAGE_FORMATS`).

    Returns:
        Image in mode RGB that holds no open file.

    Raises:
        InputError: When the file is missing, not a readable image, truncated or too large.
    """
    return decode_image(io.BytesIO(_read_limited(Path(path))), str(path))


def decode_image(stream: BinaryIO, name: str) -> Image.Image:
    """Decode an image that is already in memory (an upload, a data URL); otherwise as `open_image`.

    Args:
        stream: Encoded image, at its start.
        name: What the image is called in error messages.

    Returns:
        Image in mode RGB.

    Raises:
        InputError: When the data are not a readable image, truncated or too large.

    Example:
        >>> import io
        >>> from PIL import Image
        >>> stream = io.BytesIO()
        >>> Image.new("L", (4, 2)).save(stream, "PNG")
        >>> _ = stream.seek(0)
        >>> image = decode_image(stream, "upload")
        >>> image.mode, image.size
        ('RGB', (4, 2))
    """
    return _decode(stream, name)


def check_image(path: str | Path) -> None:
    """Check that `open_image` will succeed, without keeping the pixels.

    A JPEG that ends with its end marker is whole and not decoded, for a benchmark has thousands; damage in its middle
    shows when it is asked. Any other image goes through the steps of `open_image`, a JPEG at an eighth of its size.

    Args:
        path: Image file.

    Raises:
        InputError: As `open_image`.
    """
    name, data = str(path), _read_limited(Path(path))
    with _opened(io.BytesIO(data), name) as image:
        if image.format == "JPEG" and data.endswith(_JPEG_END):
            return
    _decode(io.BytesIO(data), name, draft=True)


def check_images(paths: Iterable[str | Path]) -> None:
    """Check many images at once, each file only once; threads share the work.

    Args:
        paths: Image files.

    Raises:
        InputError: For the first bad image, in the given order.
    """
    unique = list(dict.fromkeys(str(path) for path in paths))
    with ThreadPoolExecutor(min(_CHECK_THREADS, os.cpu_count() or 1)) as pool:
        for future in [pool.submit(check_image, path) for path in unique]:
            try:
                future.result()
            except InputError:
                pool.shutdown(cancel_futures=True)
                raise


def find_image(folder: Path, stem: str) -> Path:
    """Return the image `stem` of `folder`, whichever ending it has; the usual `.jpg` path when there is none.

    Endings in capital letters are found too. The name comes from data: it never leads out of the folder.
    """
    name = to_file_name(stem)
    candidates = [folder / f"{name}{suffix}" for suffix in IMAGE_SUFFIXES]
    found = next((path for path in candidates if file_exists(path)), None)
    return found or _find_spelled(folder, [path.name for path in candidates]) or candidates[0]


def _find_spelled(folder: Path, names: list[str]) -> Path | None:
    """Return the first of several files of a folder, whatever its case; None when none is there."""
    try:
        there = sorted(path.name for path in folder.iterdir())
    except OSError:
        return None
    spelled = {name.casefold(): name for name in reversed(there)}
    found = (folder / spelled[name.casefold()] for name in names if name.casefold() in spelled)
    return next((path for path in found if file_exists(path)), None)


def save_png(image: Image.Image, path: str | Path) -> None:
    """Save `image` as PNG so that another process sees the whole file or none.

    Args:
        image: What to save.
        path: File to write; its folder is made when it is missing.

    Raises:
        InputError: When the folder cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    except OSError as error:
        raise InputError(f"image folder {path.parent} cannot be written ({error.strerror}); choose another") from None
    try:
        with os.fdopen(handle, "wb") as stream:
            image.save(stream, "PNG")
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


_JPEG_END = b"\xff\xd9"


def _read_limited(path: Path) -> bytes:
    """Return the bytes of an image file, or say why it cannot be one."""
    try:
        there, is_file = path.exists(), path.is_file()
    except (OSError, ValueError):
        there = is_file = False  # a name that no file can have
    if not there:
        raise InputError(f"image {path} does not exist; check the path")
    if not is_file:
        raise InputError(f"image {path} is not a file; give an image file")
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_IMAGE_BYTES + 1)
    except OSError as error:
        raise InputError(f"image {path} cannot be read ({error.strerror}); check its permissions") from None
    if len(data) > MAX_IMAGE_BYTES:
        raise InputError(f"image {path} is larger than {MAX_IMAGE_BYTES // 2**20} MiB; scale it down")
    return data


def _decode(stream: BinaryIO, name: str, draft: bool = False) -> Image.Image:
    """Decode an image into RGB, upright; as a draft, a JPEG at an eighth of its size.

    Everything that happens to an image happens here, whether it is asked or only checked.
    """
    with _strictly(), _opened(stream, name) as image:
        try:
            if draft:
                image.draft("RGB", (max(1, image.width // 8), max(1, image.height // 8)))
            image.load()
            return _to_rgb(_turn_upright(image))
        except InputError:
            raise
        except Exception as error:  # noqa: BLE001 - a decoder meets bytes that nobody thought of
            raise _unreadable(name, error) from None


_strict = threading.Lock()
_decoding: list[bool] = []
"""What Pillow's switch stood at when each decoding under way began."""


@contextmanager
def _strictly() -> Iterator[None]:
    """Let Pillow refuse what is truncated, whoever told it otherwise.

    `ImageFile.LOAD_TRUNCATED_IMAGES` belongs to the whole process, and libraries set it on import (lmms-eval): half of
    an image would then be asked about as if it were whole. The last decoding to end puts it back.
    """
    with _strict:
        _decoding.append(_decoding[0] if _decoding else ImageFile.LOAD_TRUNCATED_IMAGES)
        ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        yield
    finally:
        with _strict:
            before = _decoding.pop()
            if not _decoding:
                ImageFile.LOAD_TRUNCATED_IMAGES = before


def _opened(stream: BinaryIO, name: str) -> Image.Image:
    """Read the header and hold the pixel limit before anything is decoded."""
    try:
        image = Image.open(stream, formats=IMAGE_FORMATS)
    except UnidentifiedImageError:
        raise InputError(f"image {name} is not a readable image; save it as JPEG, PNG or WebP") from None
    except Image.DecompressionBombError:
        raise InputError(f"image {name} has more than {MAX_IMAGE_PIXELS:,} pixels; scale it down") from None
    except Exception as error:  # noqa: BLE001 - a decoder meets bytes that nobody thought of
        raise _unreadable(name, error) from None
    if image.width * image.height > MAX_IMAGE_PIXELS:
        size = f"{image.width} × {image.height}"
        image.close()
        raise InputError(f"image {name} has {size} pixels, more than {MAX_IMAGE_PIXELS:,}; scale it down")
    if image.mode == "F":
        image.close()
        raise InputError(f"image {name} has floating-point pixels, whose range is not known; save it as PNG")
    return image


def _unreadable(name: str, error: Exception) -> InputError:
    """Return the error for an image that cannot be decoded, saying what is wrong with it."""
    reason = " ".join(str(error).split()) or type(error).__name__
    if "MAX_TEXT_CHUNK" in reason or "MAX_TEXT_MEMORY" in reason:
        return InputError(f"image {name} holds text beside its pixels, of more than 1 MiB; save it without metadata")
    return InputError(f"image {name} is damaged or truncated ({reason}); replace the file")


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation → what makes the image upright."""


def _turn_upright(image: Image.Image) -> Image.Image:
    """Apply the camera's orientation; an image whose EXIF block cannot be read stays as it is.

    `ImageOps.exif_transpose` also writes the block anew, and fails at values that only matter there.
    """
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # noqa: BLE001 - the pixels are whole, whatever the block says
        orientation = None
    turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert any mode to RGB: transparency on white, 16-bit greys scaled instead of clipped."""
    key = image.info.get("transparency")  # of a PNG without alpha channel: the one colour that is transparent
    if image.mode == "I" or image.mode.startswith("I;16"):
        # Pillow gives the greys of a PGM of more than 8 bits as 0 to 65,535 in mode I, whatever their range was.
        shades = [255 if value == key else value >> 8 for value in range(1 << 16)]
        return image.convert("I").point(shades, "L").convert("RGB")
    if image.mode == "RGB" and isinstance(key, tuple) and max(key) > 255:
        image.info["transparency"] = tuple(part >> 8 for part in key)  # as Pillow has it done to pixels of 16 bits
    if image.has_transparency_data and (image.mode != "RGB" or isinstance(key, tuple)):
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")
