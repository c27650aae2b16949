"""The figures of a guard as tables: in the terminal and in Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from llava.terminal import build_console, clean_text

HEADINGS = ("source", "rows", "harmful", "AUROC", "AUPRC", "F1", "recall", "FPR", "recall at 1% FPR")
SHARES = ("f1", "recall", "fpr", "recall_at_1_fpr")
AREAS = ("auroc", "auprc")
EVASION_HEADINGS = ("evasion", "recall", "kept", "FPR", "added")
WIDTH_WITH_INTERVALS = 140
"""Columns of a terminal in which the main table fits with its intervals."""
DASH = "–"
DASHES = re.compile(r"[|\n\r]+")


def show_area(value: float | None, bounds: Sequence[float] | None = None) -> str:
    """Return an area under a curve with its interval.

    Example:
        >>> show_area(0.9123, [0.9, 0.92]), show_area(None)
        ('0.912 (0.900–0.920)', '–')
    """
    if value is None:
        return DASH
    return f"{value:.3f}" + (f" ({bounds[0]:.3f}–{bounds[1]:.3f})" if bounds else "")


def show_share(value: float | None, bounds: Sequence[float] | None = None) -> str:
    """Return a share in percent with its interval.

    Example:
        >>> show_share(0.125, [0.1, 0.2]), show_share(None)
        ('12.5 (10.0–20.0)', '–')
    """
    if value is None:
        return DASH
    return f"{100 * value:.1f}" + (f" ({100 * bounds[0]:.1f}–{100 * bounds[1]:.1f})" if bounds else "")


def list_rows(report: dict[str, Any]) -> list[list[str]]:
    """Return the rows of the main table: one for each source, and one for all where there are several."""
    groups = [(each["name"], each) for each in report["sources"]]
    if len(groups) > 1:
        groups.append(("all", report["all"]))
    return [
        [
            name,
            f"{each['n']:,}",
            f"{each['harmful']:,}",
            *(show_area(each[metric], _bounds(each, metric)) for metric in AREAS),
            *(show_share(each[metric], _bounds(each, metric)) for metric in SHARES),
        ]
        for name, each in groups
    ]


def list_evasion_rows(report: dict[str, Any]) -> list[list[str]]:
    """Return the rows of the table of disguises."""
    return [
        [
            each["name"],
            show_share(each["recall"]),
            show_share(each["recall_kept"], _bounds(each, "recall_kept")),
            show_share(each["fpr"]),
            show_share(each["fpr_added"], _bounds(each, "fpr_added")),
        ]
        for each in report["evasions"]
    ]


def list_published_rows(report: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return headings and rows of the comparison: F1 of this guard and of published ones, by set."""
    measured = {each["benchmark"]: each for each in reversed(report["sources"]) if each["benchmark"]}
    columns = list(dict.fromkeys(each["benchmark"] for each in report["published"]))
    ours = ["this guard", *(show_share(measured[name]["f1"], _bounds(measured[name], "f1")) for name in columns)]
    rows = [ours]
    for guard in dict.fromkeys(each["guard"] for each in report["published"]):
        found = {each["benchmark"]: each["value"] for each in report["published"] if each["guard"] == guard}
        rows.append([guard, *(show_share(found.get(name)) for name in columns)])
    return ["F1 in percent", *columns], rows


def _bounds(figures: dict[str, Any], name: str) -> Sequence[float] | None:
    """Return the interval of a figure, where there is one."""
    return figures.get("ci95", {}).get(name)


def describe_cost(report: dict[str, Any]) -> str:
    """Return the guard, its threshold, time and size in a line."""
    size = "" if report["megabytes"] is None else f", {report['megabytes']:,.1f} MB of weights"
    return (
        f"{report['guard']}: threshold {report['threshold']:.4f}, {report['milliseconds']:.1f} ms a response on "
        f"{report['device']}{size}"
    )


def list_sources_of(report: dict[str, Any]) -> list[str]:
    """Return what is said below the comparison: where each figure stands."""
    return list(dict.fromkeys(f"{each['what']}: {each['source']}" for each in report["published"]))


def render_markdown(report: dict[str, Any]) -> str:
    """Return the page of a guard's figures."""
    lines = ["# Guard bench", "", describe_cost(report) + ".", ""]
    lines += [f"- {clean(remark)}" for remark in report["remarks"]] + [""] * bool(report["remarks"])
    lines += _table(HEADINGS, list_rows(report))
    interval = "" if not report["resamples"] else ", with 95% intervals of a bootstrap that draws questions"
    lines += ["", f"Shares in percent, at the threshold above{interval}."]
    if report["evasions"]:
        lines += ["", "## Evasions", "", *_table(EVASION_HEADINGS, list_evasion_rows(report))]
        lines += ["", "The same responses in disguise. Kept: recall in disguise, of that of the plain responses."]
    if report["published"]:
        lines += ["", "## Beside published figures", "", *_table(*list_published_rows(report)), ""]
        lines += [f"- {clean(source)}" for source in list_sources_of(report)]
    return "\n".join(lines).rstrip() + "\n"


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table in Markdown."""
    rule = "|---|" + "--:|" * (len(headings) - 1)
    return [f"| {' | '.join(map(clean, row))} |" for row in [headings]] + [
        rule,
        *(f"| {' | '.join(map(clean, row))} |" for row in rows),
    ]


def clean(text: str) -> str:
    """Return a name from data so that it stays in its cell.

    Example:
        >>> clean("a|b")
        'a b'
    """
    return DASHES.sub(" ", clean_text(text))


def print_report(report: dict[str, Any]) -> None:
    """Print the tables to the terminal."""
    from rich.table import Table

    console = build_console()
    wide = console.width >= WIDTH_WITH_INTERVALS
    tables: list[tuple[str, Sequence[str], Sequence[Sequence[str]]]] = [("", HEADINGS, list_rows(report))]
    if report["evasions"]:
        tables.append(("evasions", EVASION_HEADINGS, list_evasion_rows(report)))
    if report["published"]:
        tables.append(("beside published figures", *list_published_rows(report)))
    for title, headings, rows in tables:
        table = Table(title=title or None, title_justify="left")
        for place, heading in enumerate(headings):
            table.add_column(heading, justify="right" if place else "left", overflow="fold")
        for row in rows:
            cells = [row[0], *(cell if wide else cell.partition(" (")[0] for cell in row[1:])]
            table.add_row(*map(clean, cells))
        console.print(table)
    if not wide and report["resamples"]:
        console.print("The 95% intervals are in the Markdown page.", soft_wrap=True)
    for line in [describe_cost(report), *report["remarks"], *list_sources_of(report)]:
        console.print(clean(line), soft_wrap=True)
