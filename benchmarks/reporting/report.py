"""Measured ratios as people read them: lines, a Markdown table, a plot."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.measurement import Measurement
from benchmarks.reporting.machine import Machine
from llava.errors import InputError
from llava.files import write_bytes_atomic

INCHES, INCHES_A_BAR, DOTS = 9.0, 0.34, 150
HOLDS, FAILS = "#2a7f62", "#b5473c"


def render_line(row: Measurement) -> str:
    """Return a measurement as one line.

    Example:
        >>> print(render_line(Measurement("speed", 12.0, 2.0, 5.0, "questions/s", 3)))
        speed: 12.000 against 2.000 questions/s, 6.0 times (goal 5: holds)
        >>> print(render_line(Measurement("speed", 12.0, None, 5.0, "rows/s", 3, note="trl is not installed")))
        speed: 12.000 rows/s (trl is not installed)
    """
    note = f" ({row.note})" if row.note else ""
    if row.ratio is None:
        return f"{row.name}: {row.ours:.3f} {row.unit}{note}"
    times = f"{row.ratio:.3g}" if row.ratio < 1 else f"{row.ratio:.1f}"
    return (
        f"{row.name}: {row.ours:.3f} against {row.baseline:.3f} {row.unit}, "
        f"{times} times (goal {row.goal:.3g}: {describe_goal(row)}){note}"
    )


def describe_goal(row: Measurement) -> str:
    """Say whether the goal is reached."""
    if row.ratio is None:
        return "not measured"
    return "holds" if row.ratio >= row.goal else "does not hold"


def render_markdown(
    rows: Sequence[Measurement], machine: Machine, faults: Mapping[str, str], plot: str | None = None
) -> str:
    """Return a page with the machine, a table, and what could not be measured.

    Args:
        rows: What was measured.
        machine: Where.
        faults: What went wrong, by name of the benchmark.
        plot: Address of the plot, as seen from the page; None shows none.
    """
    lines = [
        "# What it costs",
        "",
        f"Measured on {machine}. Medians over interleaved repeats; a ratio over 1 means that ours is the better one.",
        "",
        "| | ours | baseline | unit | ratio | goal | | repeats |",
        "|---|--:|--:|---|--:|--:|---|--:|",
    ]
    for row in rows:
        baseline, ratio = (
            ("–", "–") if row.baseline is None or row.ratio is None else (f"{row.baseline:.4g}", f"{row.ratio:.3g}")
        )
        name = escape_cell(f"{row.name} ({row.note})" if row.note else row.name)
        goal = f"{row.goal:.3g}" if row.goal else "–"
        holds = describe_goal(row) if row.goal else ""
        lines.append(
            f"| {name} | {row.ours:.4g} | {baseline} | {row.unit} | {ratio} | {goal} | {holds} | {row.repeats} |"
        )
    if plot:
        lines += ["", f"![The ratios of the table as bars, with their goals]({plot})"]
    if faults:
        lines += ["", "Not measured:", "", *(f"- {name}: {escape_cell(line)}" for name, line in faults.items())]
    return "\n".join(lines) + "\n"


def escape_cell(text: str) -> str:
    """Return a text that stays within one cell of a table.

    Example:
        >>> escape_cell("a | b")
        'a \\\\| b'
    """
    return " ".join(text.split()).replace("|", "\\|")


def check_plotting() -> None:
    """Refuse to plot where matplotlib is not installed, before anything is measured.

    Raises:
        InputError: When it is not.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise InputError("--plot needs matplotlib, which is not installed; pip install matplotlib")


def draw_ratios(rows: Sequence[Measurement], machine: Machine, path: Path) -> None:
    """Write a PNG of all ratios, each a bar with its goal as a mark.

    Args:
        rows: What was measured; those without a baseline are left out.
        machine: Where; named below the bars.
        path: File to write.
    """
    from matplotlib.figure import Figure

    shown = [(row, row.ratio) for row in rows if row.ratio is not None]
    # A figure of its own, not pyplot: no global state, no display.
    figure = Figure(figsize=(INCHES, 1.2 + INCHES_A_BAR * len(shown)), dpi=DOTS, layout="constrained")
    axes = figure.add_subplot(xscale="log")
    for place, (row, ratio) in enumerate(shown):
        axes.barh(place, ratio - 1.0, left=1.0, color=HOLDS if ratio >= row.goal else FAILS, height=0.65)
        axes.text(max(ratio, row.goal, 1.0), place, f" {ratio:.3g}", va="center", fontsize=7)
        if row.goal:
            axes.plot([row.goal, row.goal], [place - 0.4, place + 0.4], color="black", linewidth=1.2)
    axes.margins(x=0.12)
    axes.set_yticks(range(len(shown)), [row.name for row, _ in shown], fontsize=7)
    axes.invert_yaxis()
    axes.axvline(1.0, color="0.6", linewidth=0.8, linestyle="--")
    axes.set_xlabel(f"how many times better than the baseline; black: goal\n{machine}", fontsize=7)
    content = io.BytesIO()
    figure.savefig(content, format="png")
    write_bytes_atomic(path, content.getvalue())
