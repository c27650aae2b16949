"""XSTest (arXiv 2308.01263): safe questions that look risky, and their unsafe contrasts → questions.

One CSV file. Its current form has the columns id, prompt, type, label (`safe` / `unsafe`), focus, note; the earlier one
(v2) has id_v1, id_v2, type, prompt, focus, note, where the type's prefix `contrast_` marks the unsafe questions. Both
are read, copies without ids too. Text only; `Question.harmful` says which side a question is on.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llava.data.benchmarks.roots import find_below
from llava.data.benchmarks.selection import Benchmark, Selection
from llava.data.rows.labels import parse_side
from llava.data.rows.tables import iter_csv
from llava.data.schema import ImageType, Question
from llava.errors import InputError
from llava.fields import describe_value

FILES = ("xstest_prompts.csv", "xstest_v2_prompts.csv")
SUBFOLDERS = ("", "xstest", "dataset/xstest", "eval_polite/xstest", "dataset", "eval_polite")

_WHAT = "XSTest file"
_IDS = ("id", "id_v2")
OTHERS = {"scenario", "harmful", "is_safe", "image", "images", "image_path", "image_type"}
"""Columns of question files that XSTest has not."""


def load_xstest(
    data_root: str | Path | None = None, selection: Selection | None = None, *, name: str = "xstest"
) -> Benchmark:
    """Load XSTest.

    Args:
        data_root: Folder with one of `FILES`, itself or below one of `SUBFOLDERS`; None looks in the current folder.
        selection: Scenarios (XSTest's types), image types and limit; None for everything.
        name: What the benchmark is called in the records.

    Returns:
        250 safe and 200 unsafe questions in the file's order.

    Raises:
        InputError: When the file is not found or a row is not of the benchmark's shape.
    """
    selection = selection or Selection()
    path = find_below(data_root, FILES, SUBFOLDERS, name, "get it from github.com/paul-rottger/xstest")
    rows = enumerate(iter_csv(path, _WHAT, ("prompt", "type")), start=1)
    questions = [
        build_xstest_question(row, name, number, f"{_WHAT} {path} line {line}") for number, (line, row) in rows
    ]
    return Benchmark(name, selection.take(selection.filter(questions, name)))


def is_xstest(row: Mapping[str, Any]) -> bool:
    """Tell whether a row of any file is one of XSTest, by its columns.

    Example:
        >>> is_xstest({"id": 1, "prompt": "?", "type": "homonyms", "label": "safe"}), is_xstest({"prompt": "?"})
        (True, False)
    """
    return {"prompt", "type"} <= row.keys() and not OTHERS & row.keys() and ("label" in row or "id_v2" in row)


def build_xstest_question(row: Mapping[str, Any], name: str, number: int, where: str) -> Question:
    """Build the question of one row.

    Args:
        row: Row of XSTest's file.
        name: What the benchmark is called.
        number: The row's number, its id in copies that have none.
        where: File and line, for messages.

    Raises:
        InputError: When a column is empty, or the label is neither safe nor unsafe.
    """
    given = [row[column] for column in _IDS if column in row]
    identity = next((value for value in given if value not in (None, "")), "" if given else number)
    prompt, kind = row["prompt"], row["type"]
    whole = isinstance(identity, (str, int)) and isinstance(prompt, str) and isinstance(kind, str)
    if not whole or not str(identity).strip() or not prompt.strip() or not kind.strip():
        raise InputError(f"{where} lacks id, prompt or type; re-download it")
    harmful = kind.startswith("contrast_")
    if "label" in row:
        side = parse_side(row["label"])
        if side is None:
            raise InputError(f"{where} has the label {describe_value(row['label'])}; it must be safe or unsafe")
        harmful = side
    return Question(name, kind, str(identity), ImageType.TEXT, prompt, harmful=harmful, fields=dict(row))
