"""Reading `summary.json`: every measure that a report or a comparison shows, by its type."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llava.errors import InputError
from llava.eval.run.layout import SUMMARY_FILE, VERDICTS_FOLDER
from llava.fields import Fields
from llava.files import read_json

SIDES = ("unprotected", "protected")


def read_summary(folder: str | Path) -> dict[str, Any]:
    """Return the summary of a scored run.

    Raises:
        InputError: When the run was not scored yet, or a part of its summary is of another type than `score` writes.
    """
    path = Path(folder) / SUMMARY_FILE
    if not path.is_file():
        raise InputError(f"{folder} holds no {SUMMARY_FILE}; run `score {folder}` first")
    return parse_summary(read_json(path, "summary"), f"summary {path}", f"run `score {folder}` again")


def parse_summary(values: Any, where: str, remedy: str) -> dict[str, Any]:
    """Check the content of `summary.json`.

    Args:
        values: What the file holds.
        where: The file, for messages.
        remedy: What the user can do, for messages.

    Returns:
        The content as it stands.

    Raises:
        InputError: Naming the first part that is absent or of another type than `score` writes.
    """
    summary = Fields(values, where, remedy)
    _check_group(summary.inner("overall"))
    for name in ("by_scenario", "by_image_type", "by_benchmark"):
        _check_groups(summary.inner(name))
    by_both = summary.inner("by_scenario_and_image_type")
    for scenario in by_both.values:
        _check_groups(by_both.inner(scenario))
        if scenario not in summary.values["by_scenario"]:
            raise by_both.refuse(scenario, "a scenario of 'by_scenario'")
    _check_run(summary)
    _check_judges(summary)
    if protector := _find_inner(summary, "protector"):
        _check_rates(protector, "flag_rate", "changed_rate", "threshold")
    if scores := _find_inner(summary, "harm_scores"):
        _check_scores(scores)
    return dict(summary.values)


def _check_run(summary: Fields) -> None:
    """Check what a summary says of the run: names, settings, times, notes."""
    summary.text("benchmark")
    summary.require("model", "detector", "detoxifier", "device")
    for name in ("model", "detector", "detoxifier", "device"):
        summary.text(name, None)
    summary.integer("records", least=1)
    for name in ("versions", "settings"):
        texts = summary.inner(name)
        for key in texts.values:
            texts.text(key)
    seconds = summary.inner("seconds")
    for stage in {"generate", "guard", "wall", "judge", *seconds.values}:
        seconds.number(stage, least=0)
    if summary.mapping("failures", None) is not None:
        failures = summary.inner("failures")
        failures.integer("refused", least=0)
        failures.integer("unanswered", 0, least=0)
        guard = failures.inner("guard")
        for name in guard.values:
            guard.integer(name, least=0)
    if summary.mapping("stages", None) is not None:
        stages = summary.inner("stages")
        for name in ("states", "detector"):
            stages.integer(name, least=0)
        _check_rates(stages, "detector_share")
    summary.texts("notes")
    summary.texts("warnings")


def _check_judges(summary: Fields) -> None:
    """Check the judges, their verdict files and their agreement."""
    summary.text("judge")
    judges = summary.inner("judges")
    for name in judges.values:
        _check_group(judges.inner(name).inner("overall"))
    files = summary.inner("verdict_files")
    for name in {summary.values["judge"], *files.values}:
        folder, slash, file = files.text(name).partition("/")
        if folder != VERDICTS_FOLDER or not slash or set(file) & set("/\\\0") or file in ("", ".", ".."):
            raise files.refuse(name, f"a file in {VERDICTS_FOLDER}/")
    for number, pair in enumerate(summary.items("agreement"), start=1):
        agreement = Fields(pair, f"{summary.where}, 'agreement' {number}", summary.remedy)
        agreement.texts("judges")
        agreement.integer("n", least=0)
        _check_rates(agreement, "agreement")
        agreement.number("kappa", None, least=-1, most=1)


def _find_inner(fields: Fields, name: str) -> Fields | None:
    """Return the reader of an object that may be null, but not absent."""
    fields.require(name)
    return None if fields.mapping(name, None) is None else fields.inner(name)


def _number_items(fields: Fields, name: str) -> Fields:
    """Return the reader of the items of a list, which are called `1`, `2` and so on."""
    items = {str(number): item for number, item in enumerate(fields.items(name), start=1)}
    return Fields(items, f"{fields.where}, '{name}'", fields.remedy)


def _check_groups(groups: Fields) -> None:
    """Check the measures of each group."""
    for name in groups.values:
        _check_group(groups.inner(name))


def _check_group(group: Fields) -> None:
    """Check all measures of a group of records."""
    _check_sides(group, "attack_success_rate")
    _check_rates(group, "mcnemar_p")
    if protector := _find_inner(group, "protector"):
        _check_rates(protector, "flag_rate", "changed_rate")
    if benign := _find_inner(group, "benign"):
        benign.require("changed")
        _check_sides(benign, "over_refusal_rate")
        _check_rates(benign, "flag_rate", "changed_rate")
        benign.integer("changed", None, least=0)
    if pairs := _find_inner(group, "pairs"):
        for side in _check_sides(pairs, "both_right_rate"):
            for name in ("only_unsafe_right", "only_safe_right", "neither_right"):
                side.integer(name, least=0)
        _check_rates(pairs, "mcnemar_p")


def _check_sides(group: Fields, rate: str) -> list[Fields]:
    """Check `unprotected` and, where it is not null, `protected`; return those that are there."""
    protected = _find_inner(group, SIDES[1])
    sides = [group.inner(SIDES[0])] + ([protected] if protected else [])
    for side in sides:
        side.require("ci95")
        side.integer("n", least=0)
        side.integer("unscored", least=0)
        _check_rates(side, rate)
        interval = side.items("ci95", None)
        if interval is not None:
            ends = _number_items(side, "ci95")
            if len(interval) != 2 or ends.number("1", least=0, most=1) > ends.number("2", least=0, most=1):
                raise side.refuse("ci95", "null or two ascending numbers")
        if (interval is None) != (side.values.get(rate) is None):
            raise side.refuse(rate, "there exactly when 'ci95' is")
    return sides


def _check_rates(fields: Fields, *names: str) -> None:
    """Check numbers from 0 to 1 that may be null."""
    fields.require(*names)
    for name in names:
        fields.number(name, None, least=0, most=1)


def _check_scores(scores: Fields) -> None:
    """Check the histograms and quantiles of harm scores."""
    sides = [scores.inner(side) for side in ("harmful", "benign")]
    for side in sides:
        side.integer("n", least=0)
        bins = _number_items(side, "bins")
        for place in bins.values:
            bins.integer(place, least=0)
        if side.values["n"]:
            quantiles = side.inner("quantiles")
            for level in quantiles.values:
                if not level.replace(".", "", 1).isascii() or not level.replace(".", "", 1).isdigit():
                    raise quantiles.refuse(level, "under a level such as 0.25")
                quantiles.number(level, least=0, most=1)
    if len(sides[0].values["bins"]) != len(sides[1].values["bins"]) or not sides[0].values["bins"]:
        raise scores.refuse("harmful", "as many bins as 'benign' has")
