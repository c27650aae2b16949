"""The row formats of the known preference and safety data sets, recognised by their columns."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from llava.data.rows.columns import ALIASES, find_column
from llava.data.rows.labels import DIRECTIONS, SIDE_COLUMN, label_columns, parse_flag, read_label
from llava.data.rows.messages import read_last_answer, read_last_question, split_transcript
from llava.data.rows.streams import Where
from llava.errors import InputError
from llava.fields import describe_value

WEIGHT = "weight"
"""Optional loss weight, which every format may have."""


@dataclass(frozen=True)
class ParsedResponse:
    """A prompt with one labelled response."""

    prompt: str
    response: str
    harmful: bool
    weight: float = 1.0


@dataclass(frozen=True)
class ParsedPair:
    """A prompt with two responses, of which `chosen` is the less harmful one."""

    prompt: str
    chosen: str
    rejected: str
    chosen_harmful: bool = False
    rejected_harmful: bool = True
    weight: float = 1.0


@dataclass(frozen=True)
class RowFormat:
    """How the rows of a data set are recognised and read."""

    name: str
    columns: tuple[str, ...]
    """Columns that must be there, by any of their names."""
    parse: Callable[[Mapping[str, Any], Where], ParsedResponse | ParsedPair]
    labelled: bool = False
    """Whether `harmful` stands for any column that labels the response."""

    def matches(self, row: Mapping[str, Any]) -> bool:
        """Tell whether the row has this format's columns."""
        return all(
            label_columns(row) if self.labelled and name == "harmful" else find_column(row, name)
            for name in self.columns
        )

    def read_columns(self, row: Mapping[str, Any]) -> set[str]:
        """Return the columns of a row that are read."""
        read = {find_column(row, name) or "" for name in ("prompt", *self.columns)} | {WEIGHT}
        return read | set(label_columns(row)) if self.labelled else read


def find_format(row: Mapping[str, Any], where: Where) -> RowFormat:
    """Return the first format whose columns the row has.

    Raises:
        InputError: When there is none; the message lists what would do.
    """
    for candidate in FORMATS:
        if candidate.matches(row):
            return candidate
    wanted = " | ".join(",".join(known.columns) for known in FORMATS)
    has = ",".join(column[:40] for column in list(row)[:20])
    raise InputError(f"{where} has columns {has or '(none)'}; known forms are {wanted}")


def _text(row: Mapping[str, Any], name: str, where: Where) -> str:
    """Return a text column, by any of its names; a missing value counts as empty, which the caller skips."""
    column = find_column(row, name) or name
    value = row.get(column)
    if isinstance(value, list):
        read = read_last_question if name == "prompt" else read_last_answer
        return read(value, column, where)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InputError(f"{where}: {column} is {type(value).__name__}, not a text; mend that row")
    return value


def _flag(row: Mapping[str, Any], column: str, where: Where) -> bool:
    """Return a true-or-false column; 0 and 1 are taken too."""
    flag = parse_flag(row[column])
    if flag is None:
        raise InputError(f"{where}: {column} is {describe_value(row[column])}; it must be true or false")
    return flag


def _number(row: Mapping[str, Any], column: str, where: Where) -> Any:
    """Return a value that should be a number; in a table every value is a text."""
    value = row[column]
    if not (where.table and isinstance(value, str)):
        return value
    try:
        return int(value) if value.strip().isdecimal() else float(value)
    except ValueError:
        return value


def _weight(row: Mapping[str, Any], where: Where) -> float:
    """Return the optional loss weight of a row."""
    if row.get(WEIGHT) is None or (where.table and row[WEIGHT] == ""):
        return 1.0
    value = _number(row, WEIGHT, where)
    # Compared before it is converted: an integer may be too large for a float.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= sys.float_info.max:
        shown = repr(value) if isinstance(value, (bool, float)) else describe_value(value)
        raise InputError(f"{where}: weight is {shown}; it must be a number from 0")
    return float(value)


def _parse_labelled(row: Mapping[str, Any], where: Where) -> ParsedResponse:
    harmful = read_label(row, where)
    assert harmful is not None, "the format is recognised by its label"
    return ParsedResponse(_text(row, "prompt", where), _text(row, "response", where), harmful, _weight(row, where))


def _parse_safe_rlhf(row: Mapping[str, Any], where: Where) -> ParsedPair:
    """PKU-SafeRLHF: two responses, a safety flag for each, and which one is the safer."""
    texts = [_text(row, f"response_{side}", where) for side in (0, 1)]
    harmful = [not _flag(row, f"is_response_{side}_safe", where) for side in (0, 1)]
    safer = _number(row, "safer_response_id", where)
    if isinstance(safer, bool) or not isinstance(safer, int) or safer not in (0, 1):
        raise InputError(f"{where}: safer_response_id is {describe_value(safer)}; it must be 0 or 1")
    # Flags outrank the preference in the rare rows where they contradict each other.
    chosen = safer if harmful[0] == harmful[1] else harmful.index(False)
    rejected = 1 - chosen
    prompt, weight = _text(row, "prompt", where), _weight(row, where)
    return ParsedPair(prompt, texts[chosen], texts[rejected], harmful[chosen], harmful[rejected], weight)


def _parse_preference(row: Mapping[str, Any], where: Where) -> ParsedPair:
    """A prompt with a better and a worse answer; of transcripts and lists of messages the last turn counts."""
    prompt = read_last_question(row[find_column(row, "prompt") or "prompt"], "prompt", where)
    chosen, rejected = (read_last_answer(row[side], side, where) for side in ("chosen", "rejected"))
    return ParsedPair(prompt, chosen, rejected, weight=_weight(row, where))


def _parse_transcripts(row: Mapping[str, Any], where: Where) -> ParsedPair:
    """hh-rlhf: two transcripts or lists of messages that share all but the last turn."""
    chosen, rejected = row["chosen"], row["rejected"]
    if isinstance(chosen, list) and isinstance(rejected, list):
        prompt = read_last_question(chosen, "chosen", where)
        better, worse = (read_last_answer(row[side], side, where) for side in ("chosen", "rejected"))
    else:
        prompt, better = split_transcript(_text(row, "chosen", where), where)
        _, worse = split_transcript(_text(row, "rejected", where), where)
    return ParsedPair(prompt, better, worse, weight=_weight(row, where))


def _parse_pair(better: str, worse: str) -> Callable[[Mapping[str, Any], Where], ParsedPair]:
    def parse(row: Mapping[str, Any], where: Where) -> ParsedPair:
        prompt, weight = _text(row, "prompt", where), _weight(row, where)
        return ParsedPair(prompt, _text(row, better, where), _text(row, worse, where), weight=weight)

    return parse


# The order matters: a row of an earlier format may have the columns of a later one.
FORMATS = (
    RowFormat(
        "safe_rlhf",
        ("prompt", "response_0", "response_1", "is_response_0_safe", "is_response_1_safe", "safer_response_id"),
        _parse_safe_rlhf,
    ),
    RowFormat(
        "rewrite",
        ("prompt", "harmful_response", "harmless_response"),
        _parse_pair("harmless_response", "harmful_response"),
    ),
    RowFormat("preference", ("prompt", "chosen", "rejected"), _parse_preference),
    RowFormat("transcripts", ("chosen", "rejected"), _parse_transcripts),
    # harmful_vs_unharmful: one question with an unharmful and a harmful answer.
    RowFormat("harmful_vs_unharmful", ("prompt", "unharmful", "harmful"), _parse_pair("unharmful", "harmful")),
    RowFormat("question_pair", ("prompt", "response_j", "response_k"), _parse_pair("response_j", "response_k")),
    # BeaverTails has `is_safe` for a label.
    RowFormat("labelled", ("prompt", "response", "harmful"), _parse_labelled, labelled=True),
    RowFormat("response_only", ("response", "harmful"), _parse_labelled, labelled=True),
)

KNOWN_COLUMNS = tuple(
    dict.fromkeys(
        [column for known in FORMATS for name in known.columns for column in ALIASES.get(name, (name,))]
        + [*DIRECTIONS, SIDE_COLUMN, WEIGHT]
    )
)
"""Every column that a format reads."""
