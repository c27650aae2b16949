"""A user's own questions, from a JSONL, CSV or JSON file → questions.

One row is one question:

| column                   | meaning                                                                             |
|--------------------------|-------------------------------------------------------------------------------------|
| `prompt` or `question`   | the text that goes to the model (needed)                                            |
| `image`                  | image file, relative to the question file or absolute                               |
| `id`                     | identity within scenario and image type; the row's number when there is none        |
| `scenario` or `category` | group in the report; `all` when there is none                                       |
| `harmful`                | whether a full answer would be unsafe: true (the default) or false                  |
| `image_type`             | `TEXT`, `SD`, `TYPO`, `SD_TYPO` or `IMAGE`; by default `IMAGE` with an image, else `TEXT` |

Every other column is kept in `Question.fields`. Rows with `unsafe_prompt` and `safe_prompt` are contrast pairs, see
`contrast_pairs`. In a JSON file the rows are a list, or an object of id → row.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llava.data.benchmarks.contrast_pairs import expand_pair, is_pair
from llava.data.benchmarks.selection import Benchmark, Selection
from llava.data.benchmarks.tables import iter_csv
from llava.data.schema import ImageType, Question, RecordKey
from llava.errors import InputError
from llava.files import iter_jsonl, read_json

SUFFIXES = (".jsonl", ".csv", ".json")
"""Endings of question files."""

DEFAULT_SCENARIO = "all"

_WHAT = "question file"
_TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def load_question_file(path: str | Path, selection: Selection | None = None, *, name: str | None = None) -> Benchmark:
    """Load a user's question file.

    Args:
        path: File in one of `SUFFIXES`.
        selection: Scenarios, image types and limit; None for everything.
        name: What the benchmark is called in the records; None for the file's name without its ending.

    Returns:
        Questions in the file's order.

    Raises:
        InputError: When the file or a row is not as above, an image is not there, or two rows have the same
            identity; the message names file and line.
    """
    path = Path(path)
    selection = selection or Selection()
    name = name or path.stem
    questions: list[Question] = []
    seen: dict[RecordKey, str] = {}
    for number, (place, source) in enumerate(_iter_rows(path), start=1):
        where = f"{_WHAT} {path} {place}"
        for row in expand_pair(source, where) if is_pair(source) else [source]:
            question = _build_question(row, name, number, path.parent, where)
            if question.key in seen:
                raise InputError(
                    f"{where} repeats id {question.id!r} of {seen[question.key]} in scenario {question.scenario!r}; "
                    "give each row its own id"
                )
            seen[question.key] = place
            questions.append(question)
    if not questions:
        raise InputError(f"{_WHAT} {path} has no questions; write one row a question")
    return Benchmark(name, selection.take(selection.filter(questions, name)))


def _iter_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield `(place, row)` of each row; the place is `line 3`, or `row 3` where JSON has no lines to name."""
    suffix = path.suffix.lower()
    if suffix == ".jsonl":
        for line, row in iter_jsonl(path, _WHAT):
            yield f"line {line}", row
    elif suffix == ".csv":
        for line, row in iter_csv(path, _WHAT):
            # An empty cell of a CSV file is a value that is not there.
            yield f"line {line}", {column: cell for column, cell in row.items() if cell != ""}
    elif suffix == ".json":
        yield from _iter_json(path)
    else:
        raise InputError(f"{_WHAT} {path} ends in {suffix or 'nothing'!r}; use {', '.join(SUFFIXES)}")


def _iter_json(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the rows of a JSON list, or of an object of id → row."""
    content = read_json(path, _WHAT)
    if isinstance(content, dict):
        content = [{"id": key, **row} if isinstance(row, dict) else row for key, row in content.items()]
    if not isinstance(content, list):
        raise InputError(f"{_WHAT} {path} is neither a list of rows nor an object of id → row; see docs/benchmarks.md")
    for number, row in enumerate(content, start=1):
        if not isinstance(row, dict):
            raise InputError(f"{_WHAT} {path} row {number} is not an object; see docs/benchmarks.md")
        yield f"row {number}", row


def _build_question(row: dict[str, Any], name: str, number: int, folder: Path, where: str) -> Question:
    """Build the question of one row."""
    prompt = _text(row, ("prompt", "question"), where)
    if prompt is None:
        raise InputError(f"{where} has no prompt; give a 'prompt' or 'question' column with text")
    image = _image(row, folder, where)
    identity = row.get("id", number)
    if isinstance(identity, bool) or not isinstance(identity, (str, int)) or not str(identity).strip():
        raise InputError(f"{where} has the id {identity!r}; use text or a whole number")
    return Question(
        benchmark=name,
        scenario=_text(row, ("scenario", "category"), where) or DEFAULT_SCENARIO,
        id=str(identity),
        image_type=_image_type(row, image, where),
        prompt=prompt,
        image=image,
        harmful=parse_truth(row.get("harmful", True), f"{where}: 'harmful'"),
        fields=row,
    )


def parse_truth(value: Any, what: str) -> bool:
    """Read a yes-or-no value: a JSON boolean, or true/false, yes/no, 1/0 as text or number.

    Raises:
        InputError: For anything else; `what` opens the message.

    Example:
        >>> parse_truth("No", "row 1"), parse_truth(True, "row 1")
        (False, True)
    """
    known = _TRUTH.get(str(value).strip().lower())
    if known is None or isinstance(value, float):
        raise InputError(f"{what} is {value!r}; write true or false")
    return known


def _text(row: dict[str, Any], columns: tuple[str, ...], where: str) -> str | None:
    """Return the first of `columns` that the row has, as text that is not blank; None without any."""
    for column in columns:
        value = row.get(column)
        if value is None:
            continue
        if not isinstance(value, str) or not value.strip():
            raise InputError(f"{where}: {column!r} is {value!r}; write text, or leave the column out")
        return value
    return None


def _image(row: dict[str, Any], folder: Path, where: str) -> str | None:
    """Return the path of the row's image, which must exist."""
    given = _text(row, ("image",), where)
    if given is None:
        return None
    path = folder / given
    if not path.is_file():
        raise InputError(f"{where}: image {given} does not exist beside the question file; mend the path")
    return str(path)


def _image_type(row: dict[str, Any], image: str | None, where: str) -> ImageType:
    """Return the row's image type, and hold that TEXT and only TEXT comes without an image."""
    default = ImageType.TEXT if image is None else ImageType.IMAGE
    given = _text(row, ("image_type",), where)
    if given is None:
        return default
    try:
        kind = ImageType(given.strip().upper())
    except ValueError:
        raise InputError(
            f"{where}: unknown image_type {given!r}; use {', '.join(k.value for k in ImageType)}"
        ) from None
    if (kind is ImageType.TEXT) != (image is None):
        remedy = "leave the image out" if image is not None else "give an image"
        raise InputError(f"{where}: image_type {kind.value} does not go with the image column; {remedy}")
    return kind
