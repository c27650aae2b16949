"""Typefaces for synthetic text: those of the system, of matplotlib where it is installed, and Pillow's own."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import ImageFont

from llava.data.typography import load_font
from llava.errors import InputError

BUILT_IN = "Aileron"
"""Pillow's own typeface: always there, and the one that `typography` sets attacks in."""

SYSTEM_FOLDERS = (Path("/usr/share/fonts"), Path("/usr/local/share/fonts"), Path.home() / ".fonts")


@dataclass(frozen=True)
class Typeface:
    """A typeface by name; `path` is None for Pillow's own."""

    name: str
    path: Path | None = None

    def at(self, size: int) -> ImageFont.FreeTypeFont:
        """Return the font at a height of `size` pixels."""
        return _font(self.path, size)


@lru_cache(maxsize=256)  # Every size of a typeface holds the whole file.
def _font(path: Path | None, size: int) -> ImageFont.FreeTypeFont:
    """Load a font once."""
    return load_font(size, path)


@lru_cache(maxsize=200_000)
def advance(typeface: Typeface, size: int, text: str) -> float:
    """Return the width of `text` in pixels."""
    return typeface.at(size).getlength(text)


def find_typefaces(names: Sequence[str], folders: Sequence[str | Path] = ()) -> list[Typeface]:
    """Find typefaces by the names of their files without `.ttf` (`DejaVuSans-Bold`), or `Aileron` for Pillow's own.

    Args:
        names: Wanted typefaces. A name that occurs twice is returned twice: drawn twice as often.
        folders: Folders to search before the system's and matplotlib's.

    Returns:
        The typefaces, in the order of `names`.

    Raises:
        InputError: When one is not installed.
    """
    files = _font_files([Path(folder) for folder in folders])
    missing = sorted({name for name in names if name != BUILT_IN and name not in files})
    if missing:
        raise InputError(
            f"typeface {missing[0]} is not installed ({len(missing)} of {len(names)} are missing); "
            "on Debian: apt install fonts-dejavu fonts-liberation fonts-freefont-ttf, or name its folder"
        )
    return [Typeface(name, files.get(name)) for name in names]


def _font_files(folders: list[Path]) -> dict[str, Path]:
    """Return the TrueType files in all folders by name; earlier folders win."""
    matplotlib = importlib.util.find_spec("matplotlib")
    bundled = [Path(matplotlib.origin).parent / "mpl-data/fonts/ttf"] if matplotlib and matplotlib.origin else []
    files: dict[str, Path] = {}
    for folder in [*folders, *SYSTEM_FOLDERS, *bundled]:
        for path in sorted(folder.rglob("*.ttf")) if folder.is_dir() else []:
            files.setdefault(path.stem, path)
    return files
