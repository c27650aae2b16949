"""MM-SafetyBench (arXiv 2311.17600): 13 scenarios × TEXT / SD / TYPO / SD_TYPO → questions.

Files: `processed_questions/<scenario>.json` maps an id to a row of six texts; the images lie in
`imgs/<scenario>/{SD,SD_TYPO,TYPO}/<id>.jpg`. Which text goes with which image (section 3.3 of the paper):

| image type | text                     | image                           |
|------------|--------------------------|---------------------------------|
| TEXT       | `Question`               | none                            |
| SD         | `Rephrased Question(SD)` | generated scene                 |
| TYPO       | `Rephrased Question`     | key phrase                      |
| SD_TYPO    | `Rephrased Question`     | scene with the key phrase below |

The reference project of MLLM-Protector asks TYPO with the SD text, which speaks of a scene that the image does not
show. `reference_typo_prompt` reproduces that, to compare with its numbers; nothing else should use it.
"""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Any

from llava.data.benchmarks.roots import check_root, find_below
from llava.data.benchmarks.selection import Benchmark, Selection, leave_out_missing
from llava.data.images import find_image
from llava.data.schema import ImageType, Question
from llava.errors import InputError
from llava.files import read_json


class Scenario(str, Enum):
    """The 13 scenarios in the benchmark's own spelling."""

    ILLEGAL_ACTIVITY = "01-Illegal_Activitiy"
    HATE_SPEECH = "02-HateSpeech"
    MALWARE_GENERATION = "03-Malware_Generation"
    PHYSICAL_HARM = "04-Physical_Harm"
    ECONOMIC_HARM = "05-EconomicHarm"
    FRAUD = "06-Fraud"
    SEX = "07-Sex"
    POLITICAL_LOBBYING = "08-Political_Lobbying"
    PRIVACY_VIOLENCE = "09-Privacy_Violence"
    LEGAL_OPINION = "10-Legal_Opinion"
    FINANCIAL_ADVICE = "11-Financial_Advice"
    HEALTH_CONSULTATION = "12-Health_Consultation"
    GOV_DECISION = "13-Gov_Decision"


IMAGE_TYPES = (ImageType.TEXT, ImageType.SD, ImageType.TYPO, ImageType.SD_TYPO)
"""The variants of one question, in the order in which they are asked."""

QUESTION_FOLDER = "processed_questions"
IMAGE_FOLDERS = ("imgs", "MM-SafetyBench(imgs)")
"""Names of the image folder: the benchmark's documentation, and what its archive unpacks to."""

SUBFOLDERS = ("", "eval_polite", "dataset/coco", "data", "MM-SafetyBench/data", "dataset", "MM-SafetyBench")
"""Where the data are looked for below the data root; the first three are the reference project's places."""

TINY_LIST = "TinyVersion_ID_List.json"

_TEXT_FIELDS = {
    ImageType.TEXT: "Question",
    ImageType.SD: "Rephrased Question(SD)",
    ImageType.TYPO: "Rephrased Question",
    ImageType.SD_TYPO: "Rephrased Question",
}
_REMEDY = "put MM-SafetyBench's processed_questions/ and imgs/ there (see dataset/README.md)"


def load_mm_safetybench(
    data_root: str | Path | None = None,
    selection: Selection | None = None,
    *,
    name: str = "mm_safetybench",
    tiny: bool = False,
    reference_typo_prompt: bool = False,
) -> Benchmark:
    """Load MM-SafetyBench's questions.

    Args:
        data_root: Folder that holds `processed_questions/` and `imgs/`, itself or below one of `SUBFOLDERS`; None
            looks in the current folder the same way.
        selection: Scenarios, image types and limit; None for everything.
        name: What the benchmark is called in the records.
        tiny: Keep only the ids of `TinyVersion_ID_List.json` (168 of 1,680), which lies beside the question folder
            or one folder up.
        reference_typo_prompt: Ask TYPO with the SD text, as the reference project does.

    Returns:
        Questions by scenario, then id in the file's order, then image type. Questions whose image is not there are
        left out and their images listed in `missing_images`.

    Raises:
        InputError: When the data are not found, a question file is not of the benchmark's shape, or all images are
            missing.
    """
    selection = selection or Selection()
    folder = _question_folder(data_root, name)
    there = [scenario.value for scenario in Scenario if (folder / f"{scenario.value}.json").is_file()]
    if not there:
        raise InputError(f"benchmark {name}: {folder} holds no scenario file such as 06-Fraud.json; {_REMEDY}")
    scenarios = selection.choose_scenarios(there, name)
    tiny_ids = _read_tiny_ids(folder) if tiny else None
    fields = dict(_TEXT_FIELDS)
    if reference_typo_prompt:
        fields[ImageType.TYPO] = fields[ImageType.SD]
    images = _image_folder(folder, data_root)
    questions: list[Question] = []
    for scenario in scenarios:
        rows = _read_scenario(folder / f"{scenario}.json")
        if tiny_ids is not None:
            rows = _keep_ids(rows, tiny_ids.get(scenario, []), scenario)
        for identity, row in rows.items():
            questions.extend(_build_questions(name, scenario, identity, row, images, fields))
    present, missing = leave_out_missing(selection.filter(questions, name), name, _REMEDY)
    return Benchmark(name, selection.take(present), missing)


def _question_folder(data_root: str | Path | None, name: str) -> Path:
    """Find `processed_questions`; the folder itself may be given as the root too."""
    root = check_root(data_root)
    if root.resolve().name == QUESTION_FOLDER:
        return root
    return find_below(data_root, [QUESTION_FOLDER], SUBFOLDERS, name, _REMEDY)


def _image_folder(question_folder: Path, data_root: str | Path | None) -> Path:
    """Return the image folder: beside the questions, else anywhere below the root; it may be absent."""
    places = [question_folder.parent, *(check_root(data_root) / subfolder for subfolder in SUBFOLDERS)]
    candidates = [place / folder for place in places for folder in IMAGE_FOLDERS]
    return next((path for path in candidates if path.is_dir()), candidates[0])


def _read_scenario(path: Path) -> dict[str, dict[str, Any]]:
    """Read one question file and check its shape."""
    rows = read_json(path, "question file")
    if not isinstance(rows, dict) or not rows:
        raise InputError(f"question file {path} is not an object of id → question; re-download it")
    for identity, row in rows.items():
        for column in dict.fromkeys(_TEXT_FIELDS.values()):
            text = row.get(column) if isinstance(row, dict) else None
            if not isinstance(text, str) or not text.strip():
                raise InputError(f"question file {path}: id {identity} has no text {column!r}; re-download it")
    return rows


def _build_questions(
    name: str, scenario: str, identity: str, row: dict[str, Any], images: Path, fields: dict[ImageType, str]
) -> list[Question]:
    """Build the four variants of one row; images may be missing still."""
    return [
        Question(
            benchmark=name,
            scenario=scenario,
            id=identity,
            image_type=kind,
            prompt=row[fields[kind]],
            image=None if kind is ImageType.TEXT else str(find_image(images / scenario / kind.value, identity)),
            fields=row,
        )
        for kind in IMAGE_TYPES
    ]


def _read_tiny_ids(question_folder: Path) -> dict[str, list[str]]:
    """Read the ids of the small version: scenario → ids, from either shape the list is found in."""
    places = [question_folder.parent / TINY_LIST, question_folder.parent.parent / TINY_LIST]
    path = next((place for place in places if place.is_file()), places[0])
    listed = read_json(path, "MM-SafetyBench tiny list")
    try:
        pairs = (
            listed.items()
            if isinstance(listed, dict)
            else [(entry["Scenario"], entry["Sampled_ID_List"]) for entry in listed]
        )
        return {str(scenario): [str(identity) for identity in ids] for scenario, ids in pairs}
    except (TypeError, KeyError):
        raise InputError(
            f"MM-SafetyBench tiny list {path} is not a list of {{Scenario, Sampled_ID_List}}; re-download it"
        ) from None


def _keep_ids(rows: dict[str, dict[str, Any]], ids: list[str], scenario: str) -> dict[str, dict[str, Any]]:
    """Keep the rows with the given ids, in the file's order."""
    unknown = [identity for identity in ids if identity not in rows]
    if unknown:
        raise InputError(f"{TINY_LIST} names id {unknown[0]} of {scenario}, which its question file lacks; re-download")
    return {identity: row for identity, row in rows.items() if identity in set(ids)}
