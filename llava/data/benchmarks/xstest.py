"""XSTest (arXiv 2308.01263): safe questions that look risky, and their unsafe contrasts → questions.

One CSV file. Its current form has the columns id, prompt, type, label (`safe` / `unsafe`), focus, note; the earlier one
(v2) has id_v1, id_v2, type, prompt, focus, note, where the type's prefix `contrast_` marks the unsafe questions. Both
are read. Text only; `Question.harmful` says which side a question is on.
"""

from __future__ import annotations

from pathlib import Path

from llava.data.benchmarks.roots import find_below
from llava.data.benchmarks.selection import Benchmark, Selection
from llava.data.benchmarks.tables import iter_csv
from llava.data.schema import ImageType, Question
from llava.errors import InputError

FILES = ("xstest_prompts.csv", "xstest_v2_prompts.csv")
SUBFOLDERS = ("", "xstest", "dataset/xstest", "eval_polite/xstest", "dataset", "eval_polite")

_WHAT = "XSTest file"


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
    questions = [_build_question(row, name, path, line) for line, row in iter_csv(path, _WHAT, ("prompt", "type"))]
    return Benchmark(name, selection.take(selection.filter(questions, name)))


def _build_question(row: dict[str, str], name: str, path: Path, line: int) -> Question:
    """Build the question of one row."""
    identity = row.get("id") or row.get("id_v2")
    if not identity or not row["prompt"].strip() or not row["type"].strip():
        raise InputError(f"{_WHAT} {path} line {line} lacks id, prompt or type; re-download it")
    label = row.get("label")
    if label not in (None, "safe", "unsafe"):
        raise InputError(f"{_WHAT} {path} line {line} has the label {label!r}; it must be safe or unsafe")
    harmful = label == "unsafe" if label is not None else row["type"].startswith("contrast_")
    return Question(name, row["type"], identity, ImageType.TEXT, row["prompt"], harmful=harmful, fields=row)
