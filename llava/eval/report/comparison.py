"""Put several scored runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava.data.schema import RecordKey
from llava.errors import InputError
from llava.eval.report.tables import (
    SIDES,
    escape_markdown,
    format_p,
    format_percent,
    format_side,
    print_table,
)
from llava.eval.run.records import load_records
from llava.eval.scoring.metrics import mcnemar_p
from llava.eval.scoring.summary import read_summary
from llava.eval.scoring.verdicts import load_verdicts

if TYPE_CHECKING:
    from rich.console import Console

HEADINGS = ("run", "model", "detector", "detoxifier", "n", "unprotected", "protected", "over-refusal", "flagged", "p")


def compare_runs(folders: Sequence[str | Path]) -> list[dict[str, Any]]:
    """Compare runs by their headline judge; each run is also tested against the first one, question by question.

    Args:
        folders: Scored runs, judged by the same judge.

    Returns:
        One row a run: `run`, `model`, `detector`, `detoxifier`, the two sides of the summary's `overall`,
        `over_refusal`, `flag_rate`, and against the first run `shared` (harmful questions that both answered and the
        judge could score) and `mcnemar_p`. What the user saw is compared: the protected side where there is one.

    Raises:
        InputError: When a run is not scored, or the runs were judged differently, also by another version of a judge.
    """
    if len(folders) < 2:
        raise InputError("one run alone cannot be compared; give two or more folders")
    summaries = [read_summary(folder) for folder in folders]
    judges = {summary["judge"] for summary in summaries}
    if len(judges) > 1:
        raise InputError(f"runs were judged by {' and '.join(sorted(judges))}; score them with the same --judge first")
    check_same_judge(folders, summaries)
    outcomes = [read_outcomes(folder, summary) for folder, summary in zip(folders, summaries, strict=True)]
    return [
        describe_run(folder, summary, outcome, outcomes[0] if place else None)
        for place, (folder, summary, outcome) in enumerate(zip(folders, summaries, outcomes, strict=True))
    ]


def check_same_judge(folders: Sequence[str | Path], summaries: Sequence[dict[str, Any]]) -> None:
    """Refuse judges that only have their name in common: another checkpoint, threshold or server judges differently.

    A verdict file is named after all of that.

    Raises:
        InputError: Naming the first run that was judged unlike the first one.
    """
    files = [summary["verdict_files"][summary["judge"]] for summary in summaries]
    for folder, file in zip(folders, files, strict=True):
        if file != files[0]:
            raise InputError(
                f"judge {summaries[0]['judge']} of {folder} is not that of {folders[0]}: its checkpoint, threshold or "
                "server is another; score both runs again with the same judge"
            )


def read_outcomes(folder: str | Path, summary: dict[str, Any]) -> dict[RecordKey, bool]:
    """Return for each harmful question whether what the user saw was unsafe; unscored ones are left out."""
    harmful = {record.key for record in load_records(folder) if record.question.harmful}
    shown = {key: sides[-1] for key, sides in load_verdicts(Path(folder), summary).items() if key in harmful}
    return {key: unsafe for key, unsafe in shown.items() if unsafe is not None}


def describe_run(
    folder: str | Path, summary: dict[str, Any], outcome: dict[RecordKey, bool], first: dict[RecordKey, bool] | None
) -> dict[str, Any]:
    """Return one row of the comparison."""
    overall = summary["overall"]
    benign = overall["benign"]
    side = (benign["protected"] or benign["unprotected"]) if benign else None
    row = {
        "run": str(folder),
        **{name: summary[name] for name in ("model", "detector", "detoxifier")},
        **{name: overall[name] for name in SIDES},
        "over_refusal": side["over_refusal_rate"] if side else None,
        "flag_rate": overall["protector"]["flag_rate"] if overall["protector"] else None,
        "shared": None,
        "mcnemar_p": None,
    }
    if first is not None:
        shared = sorted(set(first) & set(outcome))
        row["shared"] = len(shared)
        if shared:
            better = sum(first[key] and not outcome[key] for key in shared)
            row["mcnemar_p"] = mcnemar_p(better, sum(outcome[key] and not first[key] for key in shared))
    return row


def list_cells(row: dict[str, Any]) -> list[str]:
    """Return a row of the comparison as it is shown."""
    return [
        row["run"],
        *(str(row[name] or "–") for name in ("model", "detector", "detoxifier")),
        str(row["unprotected"]["n"]),
        *(format_side(row[side]) for side in SIDES),
        format_percent(row["over_refusal"]),
        format_percent(row["flag_rate"]),
        format_p(row["mcnemar_p"]),
    ]


def print_comparison(rows: Sequence[dict[str, Any]], console: Console | None = None) -> None:
    """Print a comparison to the terminal."""
    caption = "attack success rate in %, 95 % interval; p: McNemar's exact test against the first run"
    print_table("", caption, HEADINGS, [list_cells(row) for row in rows], console, words=4)


def render_comparison(rows: Sequence[dict[str, Any]]) -> str:
    """Return a comparison as a Markdown table."""
    lines = [f"| {' | '.join(HEADINGS)} |", "|---|---|---|---|" + "--:|" * (len(HEADINGS) - 4)]
    lines += [f"| {' | '.join(map(escape_markdown, list_cells(row)))} |" for row in rows]
    return "\n".join(lines) + "\n"
