"""The summary as tables, on the terminal and in Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from llava.terminal import build_console, clean_text

if TYPE_CHECKING:
    from rich.console import Console

SIDES = ("unprotected", "protected")


def format_percent(rate: float | None, digits: int = 1) -> str:
    """Return a rate in percent, or a dash where there is none.

    Example:
        >>> format_percent(0.125), format_percent(None)
        ('12.5', '–')
    """
    return "–" if rate is None else f"{100 * rate:.{digits}f}"


def format_interval(side: dict[str, Any] | None) -> str:
    """Return the 95 % interval of one side, in percent."""
    if not side or side["ci95"] is None:
        return ""
    low, high = map(format_percent, side["ci95"])
    return f"[{low}, {high}]"


def format_side(side: dict[str, Any] | None) -> str:
    """Return rate and interval of one side, short enough for a terminal.

    Example:
        >>> format_side({"attack_success_rate": 0.75, "ci95": [0.409, 0.929]})
        '75.0 (41–93)'
    """
    if not side or side["ci95"] is None:
        return "–"
    low, high = (format_percent(bound, 0) for bound in side["ci95"])
    return f"{format_percent(rate_of(side))} ({low}–{high})"


def format_p(p: float | None) -> str:
    """Return a p-value as papers write it.

    Example:
        >>> format_p(0.00002), format_p(0.0312), format_p(None)
        ('< 0.0001', '0.0312', '–')
    """
    if p is None:
        return "–"
    return "< 0.0001" if p < 0.0001 else f"{p:.4f}"


def rate_of(side: dict[str, Any] | None) -> float | None:
    """Return the attack success rate of one side of a group."""
    return side["attack_success_rate"] if side else None


def list_groups(summary: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield `(kind, name, group)`: the scenarios, the image types, the benchmarks where several, and all together."""
    for name, group in summary["by_scenario"].items():
        yield "scenario", name, group
    for name, group in summary["by_image_type"].items():
        yield "image type", name, group
    if len(summary["by_benchmark"]) > 1:
        for name, group in summary["by_benchmark"].items():
            yield "benchmark", name, group
    yield "all", "all", summary["overall"]


def print_summary(summary: dict[str, Any], console: Console | None = None) -> None:
    """Print the summary to the terminal: rates with intervals by scenario, by image type, and over all.

    Args:
        summary: Content of `summary.json`.
        console: Where to print; None takes stdout.
    """
    console = console or build_console()
    rows: list[list[str]] = []
    sections: list[int] = []
    previous = "scenario"
    for kind, name, group in list_groups(summary):
        if kind != previous:
            sections.append(len(rows))
            previous = kind
        rates = [format_side(group[side]) for side in SIDES]
        protector = group["protector"] or {}
        shares = [format_percent(protector.get(share)) for share in ("flag_rate", "changed_rate")]
        rows.append([name, str(group["unprotected"]["n"]), *rates, *shares])
    title = f"{summary['benchmark']} · {summary['model']} · judge {summary['judge']}"
    headings = ("group", "n", "unprotected", "protected", "flagged", "changed")
    caption = "attack success rate in %, 95 % interval, harmful questions"
    print_table(title, caption, headings, rows, console, sections=sections)
    for line in describe_overall(summary):
        console.print(clean_text(line), markup=False)
    for warning in summary["warnings"]:
        console.print(clean_text(f"warning: {warning}"), markup=False, style="yellow")


def print_table(
    title: str,
    caption: str,
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    console: Console | None = None,
    *,
    words: int = 1,
    sections: Sequence[int] = (),
) -> None:
    """Print a table to the terminal.

    Args:
        title: Line above it; may be empty.
        caption: Line below it.
        headings: Names of the columns.
        rows: Cells as they are shown.
        console: Where to print; None takes stdout.
        words: How many columns from the left hold words; the others hold numbers, which are never broken.
        sections: Places of rows that have a rule above them.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    # A console of somebody else's may read markup, so that every text of the table is wrapped.
    table = Table(
        title=Text(clean_text(title)) if title else None,
        caption=Text(clean_text(caption)),
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    for place, heading in enumerate(headings):
        number = place >= words
        table.add_column(Text(heading), justify="right" if number else "left", overflow="fold", no_wrap=number)
    for place, row in enumerate(rows):
        if place in sections:
            table.add_section()
        table.add_row(*(Text(clean_text(cell)) for cell in row))
    (console or build_console()).print(table)


def describe_overall(summary: dict[str, Any]) -> list[str]:
    """Return what a table of rates leaves out: the paired test, over-refusal, unscored texts, further judges, notes."""
    overall = summary["overall"]
    lines = []
    if overall["mcnemar_p"] is not None:
        lines.append(f"protected against unprotected: McNemar's exact p {format_p(overall['mcnemar_p'])}")
    for side in SIDES:
        if overall[side] and overall[side]["unscored"]:
            lines.append(f"{side}: {overall[side]['unscored']} texts could not be judged and are left out")
    benign = overall["benign"]
    if benign:
        for side in SIDES:
            if benign[side]:
                rate = format_percent(benign[side]["over_refusal_rate"])
                lines.append(f"over-refusal {side}: {rate} % of {benign[side]['n']} benign questions")
        if benign["flag_rate"] is not None:
            changed = (
                f"{benign['changed']} of {benign['unprotected']['n']} ({format_percent(benign['changed_rate'])} %)"
            )
            lines.append(f"benign answers flagged: {format_percent(benign['flag_rate'])} %, changed at all: {changed}")
    lines += describe_pairs(overall["pairs"])
    lines += describe_failures(summary.get("failures"))
    for name, measures in summary["judges"].items():
        sides = measures["overall"]
        after = f" → {format_percent(rate_of(sides['protected']))}" if sides["protected"] else ""
        lines.append(f"judge {name}: {format_percent(rate_of(sides['unprotected']))}{after} %")
    for pair in summary["agreement"]:
        kappa = "–" if pair["kappa"] is None else f"{pair['kappa']:.2f}"
        lines.append(f"{' and '.join(pair['judges'])} agree in {format_percent(pair['agreement'])} %, kappa {kappa}")
    return lines + [f"note: {note}" for note in summary["notes"]]


def describe_failures(failures: dict[str, Any] | None) -> list[str]:
    """Return a line for the questions that a server turned down, and one for each kind of failure of the protector.

    Args:
        failures: Part of the summary; None in that of an older version.

    Example:
        >>> describe_failures({"refused": 2, "guard": {"detector IndexError": 1}})  # doctest: +NORMALIZE_WHITESPACE
        ['turned down by the server, without an answer: 2 questions',
         'withheld or refused because the detector failed (IndexError): 1 responses']
    """
    if not failures:
        return []
    lines = []
    if failures["refused"]:
        lines.append(f"turned down by the server, without an answer: {failures['refused']} questions")
    for name, count in failures["guard"].items():
        part, _, error = name.partition(" ")
        lines.append(f"withheld or refused because the {part} failed ({error}): {count} responses")
    return lines


def describe_pairs(pairs: dict[str, Any] | None) -> list[str]:
    """Return a line a side on contrast pairs, and the test between the two."""
    if not pairs:
        return []
    lines = []
    for side in SIDES:
        if pairs[side]:
            one = pairs[side]
            left_out = f", {one['unscored']} unscored" if one["unscored"] else ""
            lines.append(
                f"contrast pairs right on both sides, {side}: {format_percent(one['both_right_rate'])} % of {one['n']} "
                f"{format_interval(one)}; too strict {one['only_unsafe_right']}, too lax {one['only_safe_right']}, "
                f"neither right {one['neither_right']}{left_out}"
            )
    if pairs["mcnemar_p"] is not None:
        lines.append(f"contrast pairs, protected against unprotected: McNemar's exact p {format_p(pairs['mcnemar_p'])}")
    return lines


def describe_scores(scores: dict[str, Any] | None) -> list[str]:
    """Return a line a kind of question on the distribution of its answers' harm scores."""
    return [
        f"harm scores of answers to {side} questions (n {scores[side]['n']}), by quantile: "
        + ", ".join(f"{100 * float(level):g} % {score:.3f}" for level, score in scores[side]["quantiles"].items())
        for side in ("harmful", "benign")
        if scores and scores[side]["n"]
    ]


def describe_time(summary: dict[str, Any]) -> list[str]:
    """Return a line with the seconds of each stage, over all processes, and the wall time of all launches."""
    seconds = summary["seconds"]
    stages = ", ".join(
        f"{stage} {seconds[stage]:.1f} s ({seconds[stage] / summary['records']:.3f} s a question)"
        for stage in ("generate", "guard", "judge")
    )
    return [f"time of each stage: {stages}; wall time of generation {seconds['wall']:.1f} s"]


def render_markdown(summary: dict[str, Any]) -> str:
    """Return the summary as a Markdown page."""
    lines = [
        f"# {escape_markdown(str(summary['benchmark']))}",
        "",
        f"- model: {format_code(summary['model'])}",
        f"- detector: {format_code(summary['detector'])}, detoxifier: {format_code(summary['detoxifier'])}",
        f"- judge: {format_code(summary['judge'])}",
        f"- records: {summary['records']}",
        "",
        "Attack success rate in %, with its 95 % interval (Wilson), over the harmful questions.",
    ]
    previous = ""
    for kind, name, group in list_groups(summary):
        if kind != previous:
            lines += ["", f"| {kind} | n | unprotected | protected | flagged | changed |", "|---|--:|--:|--:|--:|--:|"]
            previous = kind
        protector = group["protector"] or {}
        cells = [f"{format_percent(rate_of(group[side]))} {format_interval(group[side])}".strip() for side in SIDES]
        shares = [format_percent(protector.get(share)) for share in ("flag_rate", "changed_rate")]
        row = [escape_markdown(name), str(group["unprotected"]["n"]), *cells, *shares]
        lines.append(f"| {' | '.join(row)} |")
    details = describe_overall(summary) + describe_scores(summary["harm_scores"]) + describe_time(summary)
    details += [f"warning: {warning}" for warning in summary["warnings"]]
    lines += ["", *(f"- {escape_markdown(line)}" for line in details)]
    return "\n".join(lines) + "\n"


def escape_markdown(text: str) -> str:
    """Return `text` so that it neither ends a table cell nor is read as HTML or markup."""
    plain = " ".join(text.split())
    return "".join(f"\\{letter}" if letter in "\\`*_|[]<>#~&!" else letter for letter in plain)


def format_code(text: str | None) -> str:
    """Return a name as code, with a fence that it cannot end.

    Example:
        >>> format_code("org/model"), format_code("a`b"), format_code(None)
        ('`org/model`', '`` a`b ``', '`None`')
    """
    plain = " ".join(str(text).split())
    fence = "`" * (1 + max(map(len, re.findall("`+", plain)), default=0))
    return f"{fence} {plain} {fence}" if "`" in plain or not plain else f"{fence}{plain}{fence}"
