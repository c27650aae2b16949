"""A user's own questions, from a JSON Lines, CSV, JSON or Parquet file → questions.

One row is one question:

| column                          | meaning                                                                           |
|---------------------------------|-----------------------------------------------------------------------------------|
| `prompt` or `question`          | the text that goes to the model (needed)                                          |
| `image`, `images`, `image_path` | one image file, relative to the question file or absolute                         |
| `id`                            | identity within scenario and image type; the row's number when there is none      |
| `scenario` or `category`        | group in the report; `all` when there is none                                     |
| `harmful`, `is_safe`, `label` … | whether a full answer would be unsafe, see `llava.data.rows.labels`; else it is   |
| `image_type`                    | one of the five types; by default `IMAGE` with an image, else `TEXT`              |

Every other column is kept in `Question.fields`, and named in a note. Rows with `unsafe_prompt` and `safe_prompt` are
contrast pairs, see `contrast_pairs`. In a JSON file the rows are a list, or an object of id → row. XSTest's own file is
recognised by its columns.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llava.data.benchmarks.contrast_pairs import PAIR, expand_pair, is_pair
from llava.data.benchmarks.selection import Benchmark, Selection
from llava.data.benchmarks.xstest import build_xstest_question, is_xstest
from llava.data.rows.columns import (
    ALIASES,
    UnreadColumns,
    find_column,
    list_images,
    refuse_media,
    rename_columns,
)
from llava.data.rows.labels import DIRECTIONS, SIDE_COLUMN, label_columns, parse_side, read_label
from llava.data.rows.reading import SUFFIXES, check_plain, is_row_file, iter_rows
from llava.data.schema import ImageType, Question, RecordKey
from llava.errors import InputError
from llava.fields import describe_value
from llava.places import file_exists

DEFAULT_SCENARIO = "all"
IMAGE_MARK = "<image>"
"""What multimodal training data writes where an image stands."""

_WHAT = "question file"
_OTHERS = ("id", "image_type", "type", "unsafe_prompt", "safe_prompt", "unsafe_image", "safe_image")
_KNOWN = (*ALIASES["prompt"], *ALIASES["image"], *ALIASES["scenario"], *DIRECTIONS, SIDE_COLUMN, *_OTHERS)


def load_question_file(path: str | Path, selection: Selection | None = None, *, name: str | None = None) -> Benchmark:
    """Load a user's question file.

    Args:
        path: File in one of `SUFFIXES`, also compressed.
        selection: Scenarios, image types and limit; None for everything.
        name: What the benchmark is called in the records; None for the file's name without its ending.

    Returns:
        Questions in the file's order. Columns that nobody reads are in its notes.

    Raises:
        InputError: When the file or a row is not as above, an image is not there, or two rows have the same
            identity; the message names file and line.
    """
    path = Path(path)
    if not is_row_file(path):
        raise InputError(f"{_WHAT} {path} ends in {path.suffix.lower() or 'nothing'!r}; use {', '.join(SUFFIXES)}")
    reader = QuestionReader(path, name or name_question_file(path))
    for number, (where, raw) in enumerate(iter_rows(path, _WHAT, keyed=True, whole_text=True), start=1):
        place = f"{_WHAT} {where}"
        check_plain(raw, place)
        reader.read(rename_columns(raw, _KNOWN), number, place, table=where.table)
    if not reader.questions:
        raise InputError(f"{_WHAT} {path} has no questions; write one row a question")
    chosen = (selection or Selection()).filter(reader.questions, reader.name)
    return Benchmark(reader.name, (selection or Selection()).take(chosen), notes=reader.list_notes())


def name_question_file(path: Path) -> str:
    """Return the name of a question file's benchmark: its own without the endings.

    Example:
        >>> name_question_file(Path("x/mine.jsonl.gz")), name_question_file(Path("my.own.csv"))
        ('mine', 'my.own')
    """
    stem = path.with_suffix("") if path.suffix.lower() in (".gz", ".xz") else path
    return stem.stem


class QuestionReader:
    """Turns the rows of one file into questions."""

    def __init__(self, path: Path, name: str):
        """Start without a question.

        Args:
            path: The file, whose folder image paths are relative to.
            name: What the benchmark is called.
        """
        self.folder = path.parent
        self.name = name
        self.questions: list[Question] = []
        self.seen: dict[RecordKey, str] = {}
        self.unread = UnreadColumns(f"{_WHAT} {path}")
        self.notes: dict[str, int] = {}
        """Sentences about rows → how many rows."""
        self.xstest: bool | None = None
        """Whether the file is XSTest's own, as its first row shows."""

    def read(self, row: dict[str, Any], number: int, where: str, table: bool) -> None:
        """Read one row.

        Raises:
            InputError: When it is no question, or repeats another one's identity.
        """
        if self.xstest is None:
            self.xstest = is_xstest(row)
        if self.xstest:
            if not is_xstest(row):
                raise InputError(f"{where} has not the columns of the first row, which is XSTest's; mend that row")
            self._add(build_xstest_question(row, self.name, number, where), where)
            return
        if table:
            # An empty cell is a value that is not there.
            row = {column: cell for column, cell in row.items() if cell != ""}
        for single in expand_pair(row, where) if is_pair(row) else [row]:
            self._add(self._build(single, number, where), where)

    def list_notes(self) -> list[str]:
        """Return what the user should know about the file, one sentence each."""
        if self.xstest:
            return [f"{self.unread.source} is read as XSTest: its types are the scenarios, and it says what is harmful"]
        counted = [sentence.format(count) for sentence, count in self.notes.items()]
        return [sentence for sentence in (self.unread.warn(), self.unread.note(), *counted) if sentence]

    def _add(self, question: Question, where: str) -> None:
        """Keep a question whose identity is new."""
        if question.key in self.seen:
            raise InputError(
                f"{where} repeats id {question.id!r} of {self.seen[question.key]} in scenario {question.scenario!r}; "
                "give each row its own id"
            )
        # "line 3", "row 3": the end of the place.
        self.seen[question.key] = " ".join(where.rsplit(" ", 2)[1:])
        self.questions.append(question)

    def _build(self, row: dict[str, Any], number: int, where: str) -> Question:
        """Build the question of one row."""
        refuse_media(row, where)
        prompt = _text(row, "prompt", where)
        if prompt is None:
            raise InputError(f"{where} has no prompt; give a 'prompt' or 'question' column with text")
        image = self._find_image(row, where)
        prompt = self._take_mark(prompt, image)
        identity = row.get("id", number)
        if isinstance(identity, bool) or not isinstance(identity, (str, int)) or not str(identity).strip():
            raise InputError(f"{where} has the id {_show(identity)}; use text or a whole number")
        harmful = read_label(row, where, yes_no=True)
        self._note_unread(row)
        return Question(
            benchmark=self.name,
            scenario=_text(row, "scenario", where) or DEFAULT_SCENARIO,
            id=str(identity),
            image_type=_image_type(row, image, where),
            prompt=prompt,
            image=image,
            harmful=True if harmful is None else harmful,
            fields=row,
        )

    def _find_image(self, row: dict[str, Any], where: str) -> str | None:
        """Return the path of the row's image, which must exist; None without one."""
        paths = list_images(row, where)
        if not paths:
            return None
        if len(paths) > 1:
            raise InputError(f"{where} has {len(paths)} images; a question is asked with one")
        path = self.folder / paths[0]
        if not file_exists(path):
            raise InputError(f"{where}: image {paths[0]} does not exist beside the question file; mend the path")
        return str(path)

    def _take_mark(self, prompt: str, image: str | None) -> str:
        """Return the prompt without the mark of its image in front: the model's own template writes one."""
        if not prompt.lstrip().startswith(IMAGE_MARK):
            return prompt
        rest = prompt.lstrip().removeprefix(IMAGE_MARK).lstrip()
        if image is not None and rest:
            return rest
        sentence = f"{{}} prompts begin with {IMAGE_MARK} but have no image, and are asked as text"
        if image is None:
            self.notes[sentence] = self.notes.get(sentence, 0) + 1
        return prompt

    def _note_unread(self, row: dict[str, Any]) -> None:
        """Take note of the columns that nobody reads."""
        read = {find_column(row, name) for name in ("prompt", "scenario", "id", "image_type", PAIR)}
        labels = label_columns(row)
        if SIDE_COLUMN in labels and parse_side(row[SIDE_COLUMN]) is None:
            labels.remove(SIDE_COLUMN)
        self.unread.see(row, read | set(ALIASES["image"]) | set(labels))


def _text(row: dict[str, Any], name: str, where: str) -> str | None:
    """Return a column by any of its names, as text that is not blank; None without one."""
    column = find_column(row, name)
    value = row[column] if column is not None else None
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{where}: {column!r} is {_show(value)}; write text, or leave the column out")
    return value


def _image_type(row: dict[str, Any], image: str | None, where: str) -> ImageType:
    """Return the row's image type, and hold that TEXT and only TEXT comes without an image."""
    default = ImageType.TEXT if image is None else ImageType.IMAGE
    given = _text(row, "image_type", where)
    if given is None:
        return default
    try:
        kind = ImageType(given.strip().upper())
    except ValueError:
        raise InputError(
            f"{where}: unknown image_type {_show(given)}; use {', '.join(k.value for k in ImageType)}"
        ) from None
    if (kind is ImageType.TEXT) != (image is None):
        remedy = "leave the image out" if image is not None else "give an image"
        raise InputError(f"{where}: image_type {kind.value} does not go with the image column; {remedy}")
    return kind


def _show(value: Any) -> str:
    """Return a wrong value as a message shows it: short lists and flags as Python writes them."""
    return repr(value) if isinstance(value, (bool, list)) and len(repr(value)) < 40 else describe_value(value)
