"""What is printed to the terminal: names that come from data are shown as they are, never read as markup."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def build_console(*, stderr: bool = False) -> Console:
    """Build the console that every command prints to; `[…]` in a text is text, colours go by `style` or `Text`.

    Args:
        stderr: Whether it prints to stderr instead of stdout.

    Example:
        >>> build_console().print("pip install -e '.[train]'")
        pip install -e '.[train]'
    """
    from rich.console import Console

    return Console(stderr=stderr, markup=False, highlight=False, emoji=False)


def clean_text(text: str) -> str:
    r"""Replace the control characters of a text, which a terminal would obey; line ends and tabs stay.

    Example:
        >>> clean_text("scenario\x1b[2J")
        'scenario\\x1b[2J'
    """
    return "".join(
        character if character in "\n\t" or unicodedata.category(character) != "Cc" else f"\\x{ord(character):02x}"
        for character in text
    )
