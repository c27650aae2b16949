"""The columns in which public sets of labelled responses come, and what each of their labels means."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from llava.data.rows.columns import find_column
from llava.data.rows.labels import label_columns, parse_flag, parse_side, read_label
from llava.errors import InputError
from llava.fields import describe_value

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Labelled:
    """One response of a row, with its label."""

    prompt: str
    """The question; may be empty."""
    response: str
    """The answer; empty where the row has none."""
    harmful: bool | None
    """The label; None where the row has none, or an unclear one."""
    group: str = ""
    """What rows share that are not independent; empty: the prompt."""


@dataclass(frozen=True)
class Form:
    """How the rows of a set are recognised and read."""

    name: str
    """As messages call it."""
    columns: tuple[str, ...]
    """Columns by which it is recognised."""
    parse: Callable[[Row, str], list[Labelled]]
    """A row and its place → its responses."""
    read: Callable[[Row], set[str]]
    """The columns that are looked at, or that are known to say nothing about the label."""
    benchmark: str = ""
    """How tables of published figures call the set; empty for none of theirs."""
    remark: str = ""
    """What a reader of its figures must know."""

    fits: Callable[[Row], bool] = lambda row: True
    """What else must hold of a row with the columns."""

    def matches(self, row: Row) -> bool:
        """Tell whether a row has the form."""
        return all(column in row for column in self.columns) and self.fits(row)


def take_text(row: Row, column: str | None, where: str) -> str:
    """Return a text; what is missing is empty.

    Raises:
        InputError: When it is something else.
    """
    value = row.get(column) if column else None
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InputError(f"{where}: {column!r} is {describe_value(value)}, not a text; mend that row")
    return value


def take_first(row: Row, *columns: str) -> str | None:
    """Return the first column that holds something."""
    return next((column for column in columns if row.get(column) not in (None, "")), None)


def vote(values: list[bool | None]) -> bool | None:
    """Return what most people said; None for a tie, or when nobody said anything.

    Example:
        >>> vote([True, True, False]), vote([True, False, None]), vote([])
        (True, None, None)
    """
    yes, no = values.count(True), values.count(False)
    return None if yes == no else yes > no


def _parse_safe_rlhf(row: Row, where: str) -> list[Labelled]:
    """PKU-SafeRLHF: two responses to a prompt, each with its flag."""
    found = []
    for side in (0, 1):
        safe = parse_flag(row[f"is_response_{side}_safe"])
        text = take_text(row, f"response_{side}", where)
        found.append(Labelled(take_text(row, "prompt", where), text, None if safe is None else not safe))
    return found


def _list_models(row: Row) -> list[str]:
    """Return the models of Do-Not-Answer, by their columns."""
    return [
        column.removesuffix("_harmful")
        for column in row
        if column.endswith("_harmful") and column.removesuffix("harmful") + "response" in row
    ]


def _parse_do_not_answer(row: Row, where: str) -> list[Labelled]:
    """Do-Not-Answer: a question, and for each model a response, whether it is harmful, and a kind of action."""
    question = take_text(row, "question", where)
    return [
        Labelled(question, take_text(row, f"{model}_response", where), parse_flag(_whole(row[f"{model}_harmful"])))
        for model in _list_models(row)
    ]


def _whole(value: Any) -> Any:
    """Return 1.0 as 1: a column with gaps is read as decimal numbers by many programs."""
    if isinstance(value, str) and value.strip() in ("0.0", "1.0"):
        return value.strip()[0]
    return int(value) if isinstance(value, float) and value in (0.0, 1.0) else value


def _parse_harmbench(row: Row, where: str) -> list[Labelled]:
    """HarmBench's validation set of classifiers: a generation, and what three people say."""
    prompt = take_text(row, take_first(row, "behavior", "Behavior", "test_case", "prompt"), where)
    votes = [parse_flag(_whole(row[column]), yes_no=True) for column in _human_columns(row)]
    group = take_first(row, "behavior_id", "BehaviorID", "behavior", "Behavior", "key")
    return [Labelled(prompt, take_text(row, "generation", where), vote(votes), str(row[group]) if group else "")]


def _human_columns(row: Row) -> list[str]:
    """Return the columns of people's votes."""
    return [column for column in row if column.startswith("human_") and column[6:].isdigit()]


def _parse_wildguard(row: Row, where: str) -> list[Labelled]:
    """WildGuardTest: `harmful`, `unharmful`, or nothing where people did not agree."""
    return [_simple(row, where, parse_side(row["response_harm_label"]))]


def _parse_aegis(row: Row, where: str) -> list[Labelled]:
    """Aegis 2.0: `safe` or `unsafe`; nothing where the row has no response."""
    return [_simple(row, where, parse_side(row["response_label"]))]


def _parse_toxic_chat(row: Row, where: str) -> list[Labelled]:
    """ToxicChat: a user's words, a model's answer, and whether they are toxic."""
    label = parse_flag(_whole(row["toxicity"]))
    return [Labelled(take_text(row, "user_input", where), take_text(row, "model_output", where), label)]


REFUSAL_WORDS = {"refusal": False, "full_refusal": False, "1_full_refusal": False}
"""Labels of refusals: they are harmless. That a model complied says nothing about harm."""


def _parse_xstest(row: Row, where: str) -> list[Labelled]:
    """XSTest responses: `label` says harmful or unharmful, or else refusal or compliance."""
    label, word = parse_side(row["label"]), row["label"]
    if label is None and isinstance(word, str):
        label = REFUSAL_WORDS.get(word.strip().lower())
    return [_simple(row, where, label)]


def _parse_beavertails(row: Row, where: str) -> list[Labelled]:
    """BeaverTails: a response, and whether it is safe."""
    safe = parse_flag(row["is_safe"])
    return [_simple(row, where, None if safe is None else not safe)]


def _parse_plain(row: Row, where: str) -> list[Labelled]:
    """Rows as this project writes them: a column that labels the response, in any of its names."""
    try:
        label = read_label(row, where, yes_no=True)
    except InputError:
        label = None  # an unclear label is counted, never guessed
    return [_simple(row, where, label)]


def _simple(row: Row, where: str, label: bool | None) -> Labelled:
    """Return the response of a row that has one."""
    prompt = take_text(row, find_column(row, "prompt"), where)
    case = row.get("case_id")
    return Labelled(
        prompt, take_text(row, find_column(row, "response"), where), label, str(case) if case not in (None, "") else ""
    )


def _columns(*names: str) -> Callable[[Row], set[str]]:
    """Return a function that names these columns, and those of question, answer, case and source."""

    def read(row: Row) -> set[str]:
        shared = {column for name in ("prompt", "response") if (column := find_column(row, name))}
        return {*names, *shared, "case_id", "source"}

    return read


def _has_harms(row: Row) -> bool:
    """Tell whether a category is a table of harms, as BeaverTails has it: many sets have a category."""
    category = row["category"]
    return isinstance(category, Mapping) or (isinstance(category, str) and category.lstrip().startswith("{"))


FORMS = (
    Form(
        "PKU-SafeRLHF",
        ("prompt", "response_0", "response_1", "is_response_0_safe", "is_response_1_safe"),
        _parse_safe_rlhf,
        _columns("response_0", "response_1", "is_response_0_safe", "is_response_1_safe"),
        "SafeRLHF",
    ),
    Form(
        "HarmBench",
        ("generation", "human_0"),
        _parse_harmbench,
        lambda row: {
            *("generation", "behavior", "Behavior", "test_case", "prompt", "behavior_id", "BehaviorID", "key"),
            *_human_columns(row),
        },
        "HarmBench",
    ),
    Form(
        "WildGuardTest",
        ("prompt", "response", "response_harm_label"),
        _parse_wildguard,
        _columns("response_harm_label"),
        "WildGuard",
    ),
    Form("Aegis 2.0", ("prompt", "response", "response_label"), _parse_aegis, _columns("response_label"), "Aegis2"),
    Form(
        "ToxicChat",
        ("user_input", "model_output", "toxicity"),
        _parse_toxic_chat,
        _columns("user_input", "model_output", "toxicity"),
        remark="its labels are of what the user wrote, not of the answer",
    ),
    Form(
        "BeaverTails",
        ("prompt", "response", "is_safe", "category"),
        _parse_beavertails,
        _columns("is_safe", "category"),
        "BeaverTails",
        fits=_has_harms,
    ),
    Form("XSTest", ("prompt", "response", "label", "prompt_type"), _parse_xstest, _columns("label"), "XSTest"),
)
"""The sets that are told by their columns alone; the first that fits."""
PLAIN_NAME, DO_NOT_ANSWER_NAME = "labelled responses", "Do-Not-Answer"
DO_NOT_ANSWER = Form(
    DO_NOT_ANSWER_NAME,
    ("question",),
    _parse_do_not_answer,
    lambda row: {"question"} | {f"{model}_{part}" for model in _list_models(row) for part in ("response", "harmful")},
)
XSTEST_WORDS = Form("XSTest", ("prompt", "response", "label"), _parse_xstest, _columns("label"), "XSTest")
PLAIN = Form(PLAIN_NAME, ("response",), _parse_plain, lambda row: _columns(*label_columns(row))(row))


def find_form(row: Row, where: str) -> Form:
    """Return the form of a row.

    Raises:
        InputError: When it is none of them; the message says what would do.

    Example:
        >>> find_form({"prompt": "?", "response": "!", "harmful": False}, "line 1").name
        'labelled responses'
    """
    for form in FORMS:
        if form.matches(row):
            return form
    if "question" in row and _list_models(row):
        return DO_NOT_ANSWER
    if find_column(row, "response") is not None:
        word = row.get("label")
        if isinstance(word, str) and word.strip().lower() in {*REFUSAL_WORDS, "compliance"}:
            return XSTEST_WORDS
        if label_columns(row):
            return PLAIN
    has = ", ".join(column[:40] for column in list(row)[:20])
    known = " | ".join(",".join(form.columns) for form in (*FORMS, XSTEST_WORDS))
    raise InputError(
        f"{where} has columns {has or '(none)'}; known forms are prompt,response,harmful | {known} | "
        "question,MODEL_response,MODEL_harmful"
    )
