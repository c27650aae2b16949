"""What a terminal shows of a summary."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from rich.console import Console


def print_to_text(show: Callable[[Any, Console], object], summary: Any, width: int = 80) -> str:
    """Return what `show` prints of a summary on a terminal without colours."""
    buffer = io.StringIO()
    show(summary, Console(file=buffer, width=width, no_color=True))
    return buffer.getvalue()
