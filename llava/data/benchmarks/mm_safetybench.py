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

import re
from collections.abc import Callable
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
IMAGE_FOLDERS = ("imgs", "MM-SafetyBench(imgs)", "MM-SafetyBench_imgs", "images")
"""Names of the image folder: the benchmark's documentation, what its archive unpacks to, and what people make of it."""

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
    files, notes = _find_files(folder)
    if not files:
        raise InputError(f"benchmark {name}: {folder} holds no scenario file such as 06-Fraud.json; {_REMEDY}")
    scenarios = selection.choose_scenarios(list(files), name)
    tiny_ids = _read_tiny_ids(folder) if tiny else None
    fields = dict(_TEXT_FIELDS)
    if reference_typo_prompt:
        fields[ImageType.TYPO] = fields[ImageType.SD]
    images = _image_folder(folder, data_root)
    questions: list[Question] = []
    for scenario in scenarios:
        rows = _read_scenario(files[scenario])
        pictures = _find_folder(images, scenario, lambda there, wanted: match_scenario(there) == wanted)
        folders = {kind: _find_folder(pictures, kind.value) for kind in IMAGE_TYPES}
        if tiny_ids is not None:
            rows = _keep_ids(rows, tiny_ids.get(scenario, []), scenario)
        for identity, row in rows.items():
            questions.extend(_build_questions(name, scenario, identity, row, folders, fields))
    present, missing = leave_out_missing(selection.filter(questions, name), name, _REMEDY)
    return Benchmark(name, selection.take(present), missing, notes)


def match_scenario(name: str) -> str | None:
    """Return the scenario that a file, a folder or a list calls by another spelling; None when it is none.

    The number in front decides, without one the letters.

    Example:
        >>> match_scenario("01-Illegal_Activity"), match_scenario("hate speech"), match_scenario("notes")
        ('01-Illegal_Activitiy', '02-HateSpeech', None)
    """
    scenarios = [scenario.value for scenario in Scenario]
    if number := re.match(r"\s*(\d+)", name):
        place = int(number[1]) if len(number[1]) <= 3 else 0
        return scenarios[place - 1] if 1 <= place <= len(scenarios) else None
    letters = _letters(name)
    return next((scenario for scenario in scenarios if _letters(scenario) == letters), None) if letters else None


def _letters(name: str) -> str:
    """Return a name's letters alone; a misspelling that the benchmark keeps is no other name."""
    return re.sub(r"[^a-z]", "", name.casefold()).replace("activitiy", "activity")


def _find_files(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """Return the question file of each scenario, and a note about what else lies beside them."""
    found: dict[str, Path] = {}
    others = []
    for path in sorted(path for path in folder.glob("*.json") if not path.name.startswith(".") and path.is_file()):
        scenario = match_scenario(path.stem)
        if scenario is None or (folder / f"{scenario}.json").is_file() != (path.stem == scenario) or scenario in found:
            others.append(path.name)
        else:
            found[scenario] = path
    ordered: dict[str, Path] = {
        scenario.value: found[scenario.value] for scenario in Scenario if scenario.value in found
    }
    shown = ", ".join(others[:5]) + (" …" if len(others) > 5 else "")
    note = (
        f"{folder} also holds {shown}, which belongs to no scenario of the benchmark or to one twice, and is not asked"
    )
    return ordered, [note] if others else []


def _find_folder(parent: Path, name: str, same: Callable[[str, str], bool] | None = None) -> Path:
    """Return a folder by its name, else by another spelling of it; the usual path when there is none."""
    if (parent / name).is_dir() or not parent.is_dir():
        return parent / name
    is_same = same or (lambda there, wanted: there.casefold() == wanted.casefold())
    return next(
        (path for path in sorted(parent.iterdir()) if is_same(path.name, name) and path.is_dir()), parent / name
    )


def _question_folder(data_root: str | Path | None, name: str) -> Path:
    """Find `processed_questions`; the folder itself may be given as the root too."""
    root = check_root(data_root)
    if root.resolve().name == QUESTION_FOLDER:
        return root
    if not any((root / subfolder / QUESTION_FOLDER).exists() for subfolder in SUBFOLDERS):
        _refuse_hub_layout(root, name)
    return find_below(data_root, [QUESTION_FOLDER], SUBFOLDERS, name, _REMEDY)


def _refuse_hub_layout(root: Path, name: str) -> None:
    """Say what it is when the benchmark lies there as the hub has it: `data/<scenario>/<image type>.parquet`."""
    for folder in (root / subfolder for subfolder in (*SUBFOLDERS, "data", "MM-SafetyBench/data")):
        for path in sorted(folder.glob("*/*.parquet")):
            if match_scenario(path.parent.name):
                raise InputError(
                    f"benchmark {name}: {folder} holds the hub's Parquet files ({path.parent.name}/{path.name}), which "
                    f"are not read; {_REMEDY}"
                )


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
    name: str,
    scenario: str,
    identity: str,
    row: dict[str, Any],
    folders: dict[ImageType, Path],
    fields: dict[ImageType, str],
) -> list[Question]:
    """Build the four variants of one row; images may be missing still."""
    return [
        Question(
            benchmark=name,
            scenario=scenario,
            id=identity,
            image_type=kind,
            prompt=row[fields[kind]],
            image=None if kind is ImageType.TEXT else str(find_image(folders[kind], identity)),
            fields=row,
        )
        for kind in IMAGE_TYPES
    ]


def _read_tiny_ids(question_folder: Path) -> dict[str, list[str]]:
    """Read the ids of the small version: scenario → ids, from either shape the list is found in."""
    places = [question_folder.parent / TINY_LIST, question_folder.parent.parent / TINY_LIST]
    path = next((place for place in places if place.is_file()), places[0])
    listed = read_json(path, "MM-SafetyBench tiny list")
    entries = listed.items() if isinstance(listed, dict) else listed if isinstance(listed, list) else []
    found: dict[str, list[str]] = {}
    for entry in entries:
        scenario, ids = entry if isinstance(entry, tuple) else _read_entry(entry)
        if not isinstance(scenario, str) or not isinstance(ids, list):
            raise InputError(
                f"MM-SafetyBench tiny list {path} is not a list of {{Scenario, Sampled_ID_List}}; re-download it"
            )
        known = match_scenario(scenario)
        if known is None:
            raise InputError(f"MM-SafetyBench tiny list {path} names {scenario}, which is no scenario; re-download it")
        found.setdefault(known, []).extend(str(identity) for identity in ids)
    if not found:
        raise InputError(
            f"MM-SafetyBench tiny list {path} is not a list of {{Scenario, Sampled_ID_List}}; re-download it"
        )
    return found


def _read_entry(entry: Any) -> tuple[Any, Any]:
    """Return scenario and ids of one entry of the tiny list, whatever they are."""
    return (entry.get("Scenario"), entry.get("Sampled_ID_List")) if isinstance(entry, dict) else (None, None)


def _keep_ids(rows: dict[str, dict[str, Any]], ids: list[str], scenario: str) -> dict[str, dict[str, Any]]:
    """Keep the rows with the given ids, in the file's order."""
    unknown = [identity for identity in ids if identity not in rows]
    if unknown:
        raise InputError(f"{TINY_LIST} names id {unknown[0]} of {scenario}, which its question file lacks; re-download")
    wanted = set(ids)
    return {identity: row for identity, row in rows.items() if identity in wanted}
