"""The row formats of the known preference and safety data sets, recognised by their columns."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from llava.errors import InputError


@dataclass(frozen=True)
class Where:
    """Place of a row, for messages and for stable pair ids."""

    source: str
    """File or hub id."""
    number: int
    """Line or row number, from 1, counted over the whole source."""
    unit: str = "line"
    """`line` for JSON Lines, else `row`."""

    def __str__(self) -> str:
        return f"{self.source} {self.unit} {self.number}"


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
    """Columns that must be there."""
    parse: Callable[[Mapping[str, Any], Where], ParsedResponse | ParsedPair]

    def matches(self, row: Mapping[str, Any]) -> bool:
        """Tell whether the row has this format's columns."""
        return all(column in row for column in self.columns)


def find_format(row: Mapping[str, Any], where: Where) -> RowFormat:
    """Return the first format whose columns the row has.

    Raises:
        InputError: When there is none; the message lists what would do.
    """
    for candidate in FORMATS:
        if candidate.matches(row):
            return candidate
    wanted = " | ".join(",".join(known.columns) for known in FORMATS)
    raise InputError(f"{where} has columns {','.join(row) or '(none)'}; known forms are {wanted}")


def split_transcript(text: str, where: Where) -> tuple[str, str]:
    r"""Split an hh-rlhf transcript into the last human turn and the assistant's answer to it.

    Example:
        >>> split_transcript("\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Why?\n\nAssistant: Because.", Where("f", 1))
        ('Why?', 'Because.')
    """
    turns = re.split(r"(?:^|\n\n)(Human|Assistant):", text)
    # re.split gives the text before the first mark, then mark and content in turn.
    speakers, contents = turns[1::2], turns[2::2]
    if len(speakers) < 2 or speakers[-1] != "Assistant":
        raise InputError(f"{where}: a transcript must end with an Assistant turn behind a Human turn; mend that row")
    humans = [content for speaker, content in zip(speakers, contents, strict=True) if speaker == "Human"]
    if not humans:
        raise InputError(f"{where}: a transcript has no Human turn; mend that row")
    return humans[-1].strip(), contents[-1].strip()


def _text(row: Mapping[str, Any], column: str, where: Where) -> str:
    """Return a text column; a missing value counts as empty, which the caller skips."""
    value = row[column]
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InputError(f"{where}: {column} is {type(value).__name__}, not a text; mend that row")
    return value


def _flag(row: Mapping[str, Any], column: str, where: Where) -> bool:
    """Return a true-or-false column; 0 and 1 are taken too."""
    value = row[column]
    if value is True or value is False or (isinstance(value, int) and value in (0, 1)):
        return bool(value)
    raise InputError(f"{where}: {column} is {value!r}; it must be true or false")


def _weight(row: Mapping[str, Any], where: Where) -> float:
    """Return the optional loss weight of a row."""
    value = row.get("weight", 1.0)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
        raise InputError(f"{where}: weight is {value!r}; it must be a number from 0")
    return float(value)


def _parse_labelled(row: Mapping[str, Any], where: Where) -> ParsedResponse:
    harmful = _flag(row, "harmful", where)
    return ParsedResponse(_text(row, "prompt", where), _text(row, "response", where), harmful, _weight(row, where))


def _parse_response_only(row: Mapping[str, Any], where: Where) -> ParsedResponse:
    return ParsedResponse("", _text(row, "response", where), _flag(row, "harmful", where), _weight(row, where))


def _parse_beavertails(row: Mapping[str, Any], where: Where) -> ParsedResponse:
    harmful = not _flag(row, "is_safe", where)
    return ParsedResponse(_text(row, "prompt", where), _text(row, "response", where), harmful)


def _parse_safe_rlhf(row: Mapping[str, Any], where: Where) -> ParsedPair:
    """PKU-SafeRLHF: two responses, a safety flag for each, and which one is the safer."""
    texts = [_text(row, f"response_{side}", where) for side in (0, 1)]
    harmful = [not _flag(row, f"is_response_{side}_safe", where) for side in (0, 1)]
    safer = row["safer_response_id"]
    if isinstance(safer, bool) or safer not in (0, 1):
        raise InputError(f"{where}: safer_response_id is {safer!r}; it must be 0 or 1")
    # Flags outrank the preference in the rare rows where they contradict each other.
    chosen = safer if harmful[0] == harmful[1] else harmful.index(False)
    rejected = 1 - chosen
    return ParsedPair(_text(row, "prompt", where), texts[chosen], texts[rejected], harmful[chosen], harmful[rejected])


def _parse_rewrite(row: Mapping[str, Any], where: Where) -> ParsedPair:
    return ParsedPair(
        _text(row, "prompt", where),
        _text(row, "harmless_response", where),
        _text(row, "harmful_response", where),
        weight=_weight(row, where),
    )


def _parse_preference(row: Mapping[str, Any], where: Where) -> ParsedPair:
    prompt = _text(row, "prompt", where)
    return ParsedPair(prompt, _text(row, "chosen", where), _text(row, "rejected", where), weight=_weight(row, where))


def _parse_transcripts(row: Mapping[str, Any], where: Where) -> ParsedPair:
    """hh-rlhf: two transcripts that share all but the last turn."""
    prompt, chosen = split_transcript(_text(row, "chosen", where), where)
    _, rejected = split_transcript(_text(row, "rejected", where), where)
    return ParsedPair(prompt, chosen, rejected)


def _parse_question_pair(better: str, worse: str, prompt: str) -> Callable[[Mapping[str, Any], Where], ParsedPair]:
    def parse(row: Mapping[str, Any], where: Where) -> ParsedPair:
        return ParsedPair(_text(row, prompt, where), _text(row, better, where), _text(row, worse, where))

    return parse


# The order matters: a row of an earlier format may have the columns of a later one.
FORMATS = (
    RowFormat(
        "safe_rlhf",
        ("prompt", "response_0", "response_1", "is_response_0_safe", "is_response_1_safe", "safer_response_id"),
        _parse_safe_rlhf,
    ),
    RowFormat("rewrite", ("prompt", "harmful_response", "harmless_response"), _parse_rewrite),
    RowFormat("preference", ("prompt", "chosen", "rejected"), _parse_preference),
    RowFormat("transcripts", ("chosen", "rejected"), _parse_transcripts),
    RowFormat("beavertails", ("prompt", "response", "is_safe"), _parse_beavertails),
    RowFormat("labelled", ("prompt", "response", "harmful"), _parse_labelled),
    RowFormat("response_only", ("response", "harmful"), _parse_response_only),
    # harmful_vs_unharmful: one question with an unharmful and a harmful answer.
    RowFormat(
        "harmful_vs_unharmful",
        ("question", "unharmful", "harmful"),
        _parse_question_pair("unharmful", "harmful", "question"),
    ),
    RowFormat(
        "question_pair",
        ("question", "response_j", "response_k"),
        _parse_question_pair("response_j", "response_k", "question"),
    ),
)
