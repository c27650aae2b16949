"""The summary as a LaTeX table, in the form papers use."""

from __future__ import annotations

from typing import Any

from llava.eval.report.tables import SIDES, format_percent, rate_of

LATEX_ESCAPES = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    # Behind the end of a row they would be read as its options.
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
}


def render_latex(summary: dict[str, Any]) -> str:
    """Return a `booktabs` table in the form of the paper: scenarios in rows, without and with protector per image type.

    Rates are in percent; a scenario that lacks an image type has a dash there.
    """
    types = list(summary["by_image_type"])
    guarded = summary["overall"]["protected"] is not None
    sides = SIDES if guarded else SIDES[:1]
    spans = [f"\\multicolumn{{{len(sides)}}}{{c}}{{{escape_latex(name)}}}" for name in [*types, "All"]]
    width = len(sides)
    rules = [f"\\cmidrule(lr){{{2 + width * place}-{1 + width * (place + 1)}}}" for place in range(len(spans))]
    lines = [
        "% needs \\usepackage{booktabs}",
        f"\\begin{{tabular}}{{l{'r' * width * len(spans)}}}",
        "\\toprule",
        f" & {' & '.join(spans)} \\\\",
        " ".join(rules),
        f"Scenario & {' & '.join(['Vanilla', 'Ours'][:width] * len(spans))} \\\\",
        "\\midrule",
    ]
    for scenario, by_type in summary["by_scenario_and_image_type"].items():
        groups = [by_type.get(name) for name in types] + [summary["by_scenario"][scenario]]
        lines.append(latex_row(escape_latex(scenario), groups, sides))
    groups = [summary["by_image_type"][name] for name in types] + [summary["overall"]]
    lines += ["\\midrule", latex_row("All", groups, sides), "\\bottomrule", "\\end{tabular}"]
    return "\n".join(lines) + "\n"


def latex_row(name: str, groups: list[dict[str, Any] | None], sides: tuple[str, ...]) -> str:
    """Return one row of the LaTeX table."""
    cells = [format_percent(rate_of(group[side]) if group else None) for group in groups for side in sides]
    return f"{name} & {' & '.join(cells)} \\\\".replace("–", "--")


def escape_latex(text: str) -> str:
    """Return `text` so that LaTeX prints it, in one line; a character that cannot be printed becomes a question mark.

    Example:
        >>> escape_latex("01-Illegal_Activitiy & 5%")
        '01-Illegal\\\\_Activitiy \\\\& 5\\\\%'
    """
    line = " ".join(text.split())
    return "".join(LATEX_ESCAPES.get(letter, letter if letter.isprintable() else "?") for letter in line)
