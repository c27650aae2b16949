"""JailbreakBench's JBB-Behaviors (arXiv 2404.01318): 100 harmful requests and 100 benign ones on the same topics.

Two CSV files with the columns Index, Goal, Target, Behavior, Category, Source. Row n of the benign file is the
contrast to row n of the harmful one: both carry the same `fields["pair"]`. Text only. A run of `jailbreakbench_pairs`
asks both.
"""

from __future__ import annotations

from pathlib import Path

from llava.data.benchmarks.contrast_pairs import PAIR
from llava.data.benchmarks.roots import find_below
from llava.data.benchmarks.selection import Benchmark, Selection
from llava.data.rows.tables import iter_csv
from llava.data.schema import ImageType, Question
from llava.errors import InputError

HARMFUL_FILE = "harmful-behaviors.csv"
BENIGN_FILE = "benign-behaviors.csv"
COLUMNS = ("Index", "Goal", "Category")
SUBFOLDERS = ("", "data", "jailbreakbench", "dataset/jailbreakbench", "eval_polite/jailbreakbench", "dataset")

_WHAT = "JailbreakBench file"
_REMEDY = "get it from huggingface.co/datasets/JailbreakBench/JBB-Behaviors"


def load_jailbreakbench(
    data_root: str | Path | None = None,
    selection: Selection | None = None,
    *,
    name: str = "jailbreakbench",
    benign: bool = False,
) -> Benchmark:
    """Load one side of JBB-Behaviors.

    Args:
        data_root: Folder with the CSV file, itself or below one of `SUBFOLDERS`; None looks in the current folder.
        selection: Scenarios (categories), image types and limit; None for everything.
        name: What the benchmark is called in the records.
        benign: True for the benign requests, False for the harmful ones.

    Returns:
        100 questions in the file's order; the prompt is the goal.

    Raises:
        InputError: When the file is not found or a row is not of the benchmark's shape.
    """
    selection = selection or Selection()
    path = find_below(data_root, [BENIGN_FILE if benign else HARMFUL_FILE], SUBFOLDERS, name, _REMEDY)
    questions = []
    for line, row in iter_csv(path, _WHAT, COLUMNS):
        empty = [column for column in COLUMNS if not row[column].strip()]
        if empty:
            raise InputError(f"{_WHAT} {path} line {line} has no {empty[0]}; re-download it")
        fields = {**row, PAIR: row["Index"]}
        questions.append(
            Question(
                name, row["Category"], row["Index"], ImageType.TEXT, row["Goal"], harmful=not benign, fields=fields
            )
        )
    return Benchmark(name, selection.take(selection.filter(questions, name)))
