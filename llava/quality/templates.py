"""Pages in Markdown that are filled with figures: cards, and the comparison with simpler detectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

TEMPLATES = Path(__file__).with_name("card_templates")


def render_template(name: str, filters: Mapping[str, Callable[..., str]], **values: Any) -> str:
    """Render a page; a figure that the template wants and `values` lack is an error.

    Args:
        name: Template without `.md.jinja`.
        filters: Functions that the template shows figures with.
        **values: What it speaks of.
    """
    from jinja2 import Environment, StrictUndefined

    # Markdown has no entities, and every value is a figure or a name of ours.
    environment = Environment(  # nosec B701  # Markdown, of our own figures
        undefined=StrictUndefined,
        autoescape=False,  # noqa: S701 - the same
        keep_trailing_newline=True,
    )
    environment.filters.update(filters)
    template = (TEMPLATES / f"{name}.md.jinja").read_text(encoding="utf-8")
    return environment.from_string(template).render(**values)
