"""MOSSBench (arXiv 2406.17806): harmless questions about images that look alarming, and their unsafe contrasts.

Files, as the MOSSBench repository has them: `data/images_information/information.json` maps an id to image, question
and metadata, the images lie in `data/images/`; `data_contrast/` has the same shape with a question on the same image
that should be refused. Both carry the same `fields["pair"]`; a run of `mossbench_pairs` asks both. Scenario is the
oversensitivity type (`metadata.over`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llava.data.benchmarks.contrast_pairs import PAIR
from llava.data.benchmarks.roots import find_below
from llava.data.benchmarks.selection import Benchmark, Selection, leave_out_missing
from llava.data.images import find_image
from llava.data.schema import ImageType, Question
from llava.errors import InputError
from llava.files import read_json
from llava.places import file_exists

SUBFOLDERS = ("", "MOSSBench", "mossbench", "dataset/mossbench", "dataset/MOSSBench", "eval_polite/mossbench")
INFORMATION = "images_information/information.json"

_WHAT = "MOSSBench file"
_REMEDY = "get it from github.com/xirui-li/MOSSBench"


def load_mossbench(
    data_root: str | Path | None = None,
    selection: Selection | None = None,
    *,
    name: str = "mossbench",
    contrast: bool = False,
) -> Benchmark:
    """Load one side of MOSSBench.

    Args:
        data_root: Folder with `data/` and `data_contrast/`, itself or below one of `SUBFOLDERS`; None looks in the
            current folder.
        selection: Scenarios (oversensitivity types), image types and limit; None for everything.
        name: What the benchmark is called in the records.
        contrast: True for the unsafe contrast questions, False for the harmless ones.

    Returns:
        300 questions in the file's order, each with an image.

    Raises:
        InputError: When the files are not found or a row is not of the benchmark's shape.
    """
    selection = selection or Selection()
    side = "data_contrast" if contrast else "data"
    path = find_below(data_root, [f"{side}/{INFORMATION}"], SUBFOLDERS, name, _REMEDY)
    rows = read_json(path, _WHAT)
    if not isinstance(rows, dict) or not rows:
        raise InputError(f"{_WHAT} {path} is not an object of id → question; re-download it")
    folder = path.parent.parent
    questions = [_build_question(identity, row, name, contrast, folder, path) for identity, row in rows.items()]
    present, missing = leave_out_missing(selection.filter(questions, name), name, _REMEDY)
    return Benchmark(name, selection.take(present), missing)


def _build_question(
    identity: str, row: dict[str, Any], name: str, contrast: bool, folder: Path, path: Path
) -> Question:
    """Build the question of one row."""
    try:
        given, prompt, scenario = row["image"], row["question"], str(row["metadata"]["over"])
        whole = all(isinstance(text, str) and text.strip() for text in (given, prompt, scenario))
    except (KeyError, TypeError):
        whole = False
    if not whole:
        raise InputError(f"{_WHAT} {path}: id {identity} lacks image, question or metadata.over; re-download it")
    if Path(given).is_absolute() or ".." in Path(given).parts:
        raise InputError(f"{_WHAT} {path}: id {identity} has its image {given} outside the benchmark; re-download it")
    image = folder / given
    if not file_exists(image):
        # The list says .png where the repository stores .webp, and the contrast set shares the images of `data/`.
        places = [image.parent, folder.parent / "data" / "images"]
        image = next((p for p in (find_image(place, image.stem) for place in places) if file_exists(p)), image)
    return Question(
        benchmark=name,
        scenario=scenario,
        id=identity,
        image_type=ImageType.IMAGE,
        prompt=prompt,
        image=str(image),
        harmful=contrast,
        fields={**row, PAIR: identity},
    )
