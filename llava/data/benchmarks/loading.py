"""The one door to all questions: `load_benchmark` takes a benchmark's name or a user's file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from llava.data.benchmarks.contrast_pairs import load_pairs
from llava.data.benchmarks.figstep import load_figstep
from llava.data.benchmarks.jailbreakbench import load_jailbreakbench
from llava.data.benchmarks.mm_safetybench import load_mm_safetybench
from llava.data.benchmarks.mossbench import load_mossbench
from llava.data.benchmarks.question_files import load_question_file
from llava.data.benchmarks.sample import load_sample, load_sample_benign, load_sample_mixed
from llava.data.benchmarks.selection import Benchmark, Selection
from llava.data.benchmarks.xstest import load_xstest
from llava.data.images import check_images
from llava.data.rows.reading import SUFFIXES, is_row_file
from llava.data.schema import ImageType, RecordKey
from llava.errors import InputError
from llava.places import file_exists

__all__ = ["BENCHMARKS", "Benchmark", "load_benchmark"]

BENCHMARKS: dict[str, Callable[..., Benchmark]] = {
    "mm_safetybench": load_mm_safetybench,
    "mm_safetybench_tiny": partial(load_mm_safetybench, name="mm_safetybench_tiny", tiny=True),
    "figstep": load_figstep,
    "figstep_full": partial(load_figstep, name="figstep_full", tiny=False),
    "figstep_tiny": partial(load_figstep, name="figstep_tiny", tiny=True),
    "sample": load_sample,
    "sample_benign": load_sample_benign,
    "sample_mixed": load_sample_mixed,
    "xstest": load_xstest,
    "mossbench": load_mossbench,
    "mossbench_contrast": partial(load_mossbench, name="mossbench_contrast", contrast=True),
    "mossbench_pairs": partial(
        load_pairs, name="mossbench_pairs", unsafe=partial(load_mossbench, contrast=True), safe=load_mossbench
    ),
    "jailbreakbench": load_jailbreakbench,
    "jailbreakbench_benign": partial(load_jailbreakbench, name="jailbreakbench_benign", benign=True),
    "jailbreakbench_pairs": partial(
        load_pairs,
        name="jailbreakbench_pairs",
        unsafe=load_jailbreakbench,
        safe=partial(load_jailbreakbench, benign=True),
    ),
}
"""Every benchmark by its name; each loader takes the data root and the selection."""


def load_benchmark(
    name_or_file: str | Path,
    data_root: str | Path | None = None,
    *,
    scenarios: Sequence[str] | None = None,
    image_types: Sequence[str | ImageType] | None = None,
    limit: int | None = None,
    reference_typo_prompt: bool = False,
    verify_images: bool = True,
) -> Benchmark:
    """Load the questions of a benchmark, checked so that generation cannot stumble over them later.

    Args:
        name_or_file: One of `BENCHMARKS`, or a question file (`.jsonl`, `.csv`, `.json`, …; see `question_files`).
        data_root: Folder of the benchmark's files; None looks below the current folder. The samples need none.
        scenarios: Scenarios to keep, by full name or by number (`06`); None for all.
        image_types: Image types to keep; None for all.
        limit: Most questions to ask, spread over scenarios and image types (see `Selection.take`); None for all.
        reference_typo_prompt: See `load_mm_safetybench`; refused for other benchmarks.
        verify_images: Decode every image once. Further processes of the same run can leave it out.

    Returns:
        The benchmark. Every image it names exists and, with `verify_images`, can be decoded; no two questions have
        the same key.

    Raises:
        InputError: For an unknown name, data that are missing or damaged, or an unreadable image.
    """
    selection = Selection.parse(scenarios, image_types, limit)
    loader = _find_loader(str(name_or_file))
    if reference_typo_prompt:
        if not str(name_or_file).startswith("mm_safetybench"):
            raise InputError(f"reference_typo_prompt is for mm_safetybench, not for {name_or_file}; leave it out")
        loader = partial(loader, reference_typo_prompt=True)
    benchmark = loader(data_root, selection)
    _check_keys(benchmark)
    if verify_images:
        check_images(question.image for question in benchmark.questions if question.image is not None)
    return benchmark


def _find_loader(name_or_file: str) -> Callable[..., Benchmark]:
    """Return the loader of a name, or of a question file."""
    if name_or_file in BENCHMARKS:
        return BENCHMARKS[name_or_file]
    path = Path(name_or_file)
    if is_row_file(path):
        return lambda data_root, selection: load_question_file(_below(data_root, path), selection)
    raise InputError(
        f"unknown benchmark {name_or_file!r}; choose {', '.join(BENCHMARKS)}, or give a {', '.join(SUFFIXES)} file"
    )


def _below(data_root: str | Path | None, path: Path) -> Path:
    """Return the question file, which may also be named relative to the data root."""
    if data_root is not None and not file_exists(path) and file_exists(Path(data_root) / path):
        return Path(data_root) / path
    return path


def _check_keys(benchmark: Benchmark) -> None:
    """Refuse questions without a name of their own: resuming and merging would take one for the other."""
    seen: set[RecordKey] = set()
    for question in benchmark.questions:
        if not question.id.strip() or not question.scenario.strip():
            raise InputError(f"benchmark {benchmark.name} has a question without an id or a scenario; give it one")
        if question.key in seen:
            raise InputError(f"benchmark {benchmark.name} has {' / '.join(question.key)} twice; remove one of them")
        seen.add(question.key)
