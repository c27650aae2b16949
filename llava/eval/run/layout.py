"""What lies in the folder of a run: the names of its files, and that none of them leads elsewhere."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from llava.errors import InputError
from llava.places import check_output_file

RUN_FILE = "run.json"
RECORDS_FILE = "records.jsonl"
SHARDS_FOLDER = "shards"
CLAIMS_FOLDER = "claims"
LOCK_FILE = ".lock"
VERDICTS_FOLDER = "verdicts"
SUMMARY_FILE = "summary.json"
REPORT_FILE = "report.html"
MARKDOWN_FILE = "report.md"
LATEX_FILE = "table.tex"
RUN_FILES = (RUN_FILE, RECORDS_FILE, SHARDS_FOLDER, CLAIMS_FOLDER, LOCK_FILE)
RESULT_FILES = (VERDICTS_FOLDER, SUMMARY_FILE, REPORT_FILE, MARKDOWN_FILE, LATEX_FILE)
RESERVED_NAMES = frozenset((*RUN_FILES, *RESULT_FILES))
"""Names that no folder of a scenario may have; a test holds the list against a whole run."""
MERGED_FILE = "merged.json"
"""Lies in the folder of its scenario."""


def check_outputs(folder: Path, paths: Iterable[Path]) -> None:
    """Refuse files of a run that could not be written, before the work whose results they get.

    A run may come from somebody else. A link in it that leads out of its folder would let `score` or `report` change
    any file of whoever reads it.

    Args:
        folder: Folder of the run, or another one that the files go to.
        paths: The files.

    Raises:
        InputError: When a file cannot be written, or would lie outside the folder.
    """
    root = Path(os.path.realpath(folder))
    for path in paths:
        check_output_file(path)
        if not Path(os.path.realpath(path)).is_relative_to(root):
            raise InputError(f"output {path} leads out of {folder} through a link; remove the link")
