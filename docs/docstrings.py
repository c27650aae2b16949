"""What the reference is told about our docstrings: an `Example:` is code, whether it shows its results or not."""

from __future__ import annotations

import inspect
import re
from typing import Any

import griffe

EXAMPLE = re.compile(r"^Example:\n((?:[ \t]+\S.*\n?|[ \t]*\n)+)", re.MULTILINE)


class Examples(griffe.Extension):
    """Turn our examples into sections that the parser knows."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of one object."""
        if obj.docstring is not None and not obj.is_alias:
            obj.docstring.value = EXAMPLE.sub(_fence, obj.docstring.value)


def _fence(found: re.Match[str]) -> str:
    """Return an example as a section: doctests as they are, other code in a fence."""
    code = inspect.cleandoc("\n" + found.group(1)).rstrip()
    if ">>>" not in code:
        code = f"```python\n{code}\n```"
    return "Examples:\n" + "".join(f"    {line}\n" if line else "\n" for line in code.splitlines())
