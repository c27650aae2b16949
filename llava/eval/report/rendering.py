"""Write the report of a scored run: one self-contained page, a Markdown page and a LaTeX table."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from llava.eval.report.latex import render_latex
from llava.eval.report.tables import (
    format_interval,
    format_p,
    format_percent,
    print_summary,
    render_markdown,
)
from llava.eval.report.view import build_view
from llava.eval.run.fingerprint import read_run
from llava.eval.run.layout import LATEX_FILE, MARKDOWN_FILE, REPORT_FILE, check_outputs
from llava.eval.run.records import load_records
from llava.eval.scoring.summary import read_summary
from llava.eval.scoring.verdicts import load_verdicts
from llava.files import write_text_atomic

if TYPE_CHECKING:
    from jinja2 import Template

__all__ = ["print_summary", "render_report"]

TEMPLATES = Path(__file__).parent / "templates"


def render_report(folder: str | Path, output: str | Path | None = None) -> Path:
    """Write `report.html`, `report.md` and `table.tex` of a scored run.

    The page needs no network and no other file. Every text that a model or a question file brought is escaped, and
    blurred until it is clicked.

    Args:
        folder: Folder of the run; it must hold `records.jsonl` and `summary.json`.
        output: Folder to write to; None takes the run's own.

    Returns:
        Path of `report.html`.

    Raises:
        InputError: When the run has no records, was not scored or is damaged, or a page cannot be written; nothing is
            written then.
    """
    folder = Path(folder)
    target = Path(output) if output is not None else folder
    records = load_records(folder)
    summary = read_summary(folder)
    run = read_run(folder) or {}
    check_outputs(target, [target / name for name in (MARKDOWN_FILE, LATEX_FILE, REPORT_FILE)])
    page = load_page().render(**build_view(run, summary, records, load_verdicts(folder, summary)))
    write_text_atomic(target / MARKDOWN_FILE, render_markdown(summary))
    write_text_atomic(target / LATEX_FILE, render_latex(summary))
    write_text_atomic(target / REPORT_FILE, page)
    return target / REPORT_FILE


@functools.cache
def load_page() -> Template:
    """Return the template of the page; compiling it takes far longer than filling it, so that is done once."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=format_percent, interval=format_interval, p_value=format_p, breakable=mark_breaks
    )
    return environment.get_template("report.html.jinja")


def mark_breaks(name: str) -> Markup:
    """Escape `name` and let a browser break its line after each underscore."""
    return Markup("_<wbr>").join(name.split("_"))
