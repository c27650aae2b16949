"""The small benchmark that ships with the package: own text and drawings, mild, for trying things out.

`samples/` has MM-SafetyBench's file shape (13 scenarios × 4 questions × 4 image types), so what runs on it runs on the
real benchmark. `samples/benign.jsonl` holds harmless questions that look risky, for measuring over-refusal in the
manner of XSTest (arXiv 2308.01263). `sample_mixed` asks both. They are made by `scripts/make_sample_benchmark.py`, and
far too small and too mild to say how safe a model is.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from llava.data.benchmarks.mm_safetybench import load_mm_safetybench
from llava.data.benchmarks.question_files import load_question_file
from llava.data.benchmarks.selection import Benchmark, Selection
from llava.data.schema import Question

SAMPLE_FOLDER = Path(__file__).resolve().parent.parent / "samples"
"""Folder of the shipped samples."""

BENIGN_SHARE = 8
"""Of a few questions of both samples, one in so many is harmless."""

_NOTE = "the shipped sample only shows that the pipeline works; use a real benchmark to judge a model"


def load_sample(data_root: str | Path | None = None, selection: Selection | None = None) -> Benchmark:
    """Load the shipped sample of risky questions.

    Args:
        data_root: Not read, since the sample lies in the package; a note says so when it is given.
        selection: Scenarios, image types and limit; None for everything.

    Returns:
        208 questions: 13 scenarios × 4 texts × 4 image types.

    Raises:
        InputError: When no question is left.
    """
    return replace(load_mm_safetybench(SAMPLE_FOLDER, selection, name="sample"), notes=_notes(data_root, "sample"))


def load_sample_benign(data_root: str | Path | None = None, selection: Selection | None = None) -> Benchmark:
    """Load the shipped sample of harmless questions that look risky.

    Args:
        data_root: Not read, since the sample lies in the package; a note says so when it is given.
        selection: Scenarios, image types and limit; None for everything.

    Returns:
        Questions with `harmful` False, a few with an image.

    Raises:
        InputError: When no question is left.
    """
    return replace(
        load_question_file(SAMPLE_FOLDER / "benign.jsonl", selection, name="sample_benign"),
        notes=_notes(data_root, "sample_benign"),
    )


def load_sample_mixed(data_root: str | Path | None = None, selection: Selection | None = None) -> Benchmark:
    """Load both shipped samples as one, so that a single run shows what a protector stops and what it spoils.

    Args:
        data_root: Not read, since the samples lie in the package; a note says so when it is given.
        selection: Scenarios, image types and limit, over both samples; None for everything.

    Returns:
        The risky questions, then the harmless ones, whose ids begin with `benign-`. A limit leaves one question in
        `BENIGN_SHARE` to the harmless ones; a larger limit only adds questions.

    Raises:
        InputError: When no question is left.

    Example:
        >>> [question.harmful for question in load_sample_mixed(selection=Selection(limit=8)).questions].count(False)
        1
    """
    name, chosen = "sample_mixed", selection or Selection()
    risky = [replace(question, benchmark=name) for question in load_sample().questions]
    harmless = [replace(each, benchmark=name, id=f"benign-{each.id}") for each in load_sample_benign().questions]
    asked = chosen.filter([*risky, *harmless], name)
    if chosen.limit is not None:
        asked = _share_limit(asked, chosen.limit)
    return Benchmark(name, asked, notes=_notes(data_root, name))


def _share_limit(questions: list[Question], limit: int) -> list[Question]:
    """Keep `limit` questions, one in `BENIGN_SHARE` harmless; where one kind has too few, the other has the rest."""
    risky = [question for question in questions if question.harmful]
    harmless = [question for question in questions if not question.harmful]
    most_risky = min(len(risky), limit - min(len(harmless), limit // BENIGN_SHARE))
    return [
        *Selection(limit=most_risky).take(risky),
        *Selection(limit=min(len(harmless), limit - most_risky)).take(harmless),
    ]


def _notes(data_root: str | Path | None, name: str) -> list[str]:
    """Return what the user should know about a sample."""
    unread = f"benchmark {name} ships with the package; the data root {data_root} is not read"
    return [_NOTE, unread] if data_root is not None else [_NOTE]
