"""Visual instruction data in LLaVA's form: rows of `id`, `image` and `conversations`, checked before anything runs."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from llava.data.training.formats import Where
from llava.data.training.sources import MixturePart, iter_source
from llava.errors import InputError

logger = logging.getLogger(__name__)

IMAGE_MARK = "<image>"
"""Where the picture stands in a human turn."""

ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}
"""Speakers as the data sets spell them, and the roles of chat templates."""


@dataclass(frozen=True)
class Turn:
    """What one side says."""

    role: str
    """`system`, `user` or `assistant`."""
    text: str
    """Without image marks, stripped."""
    images: int = 0
    """Pictures that stand before the text."""


@dataclass(frozen=True)
class Conversation:
    """One row: turns that end with an answer, and the pictures they speak of."""

    id: str
    turns: tuple[Turn, ...]
    images: tuple[str, ...]
    """Paths, in the order of their marks; empty for a text-only row."""
    source: str
    """Short name of the data set."""
    where: str
    """File and row, for messages."""
    skipped_turns: int = 0
    """Answers before the first question and questions after the last answer, which are left out."""


def load_conversations(
    parts: Sequence[MixturePart], image_folder: str | None = None, split: str = "train"
) -> list[Conversation]:
    """Read LLaVA data (`.json`, `.jsonl`, also compressed or Parquet), checking every row and that its pictures exist.

    Args:
        parts: Where to read from.
        image_folder: What the rows' paths are relative to; None means the folder of each file.
        split: `train` or `test`: which file of a folder, or which part of a hub data set, is read.

    Raises:
        InputError: For the first bad row, naming file and row.
    """
    is_file = cache(Path.is_file)
    conversations: list[Conversation] = []
    for part in parts:
        folder = Path(image_folder) if image_folder is not None else _folder_of(part.source)
        before = len(conversations)
        for where, row in iter_source(part.source, split):
            conversation = parse_conversation(row, where, folder, part.name)
            for image in conversation.images:
                if not is_file(Path(image)):
                    raise InputError(f"{where}: image {image} does not exist; check the row and --image-folder")
            conversations.append(conversation)
        if skipped := sum(row.skipped_turns for row in conversations[before:]):
            logger.info("%s: left out %d turns before the first question or after the last answer", part.name, skipped)
    return conversations


def _folder_of(source: str) -> Path:
    """Return the folder that a source's picture paths are relative to."""
    path = Path(source)
    return path.parent if path.is_file() else path


def parse_conversation(row: Mapping[str, Any], where: Where, image_folder: Path, source: str = "") -> Conversation:
    r"""Read one row.

    Args:
        row: `conversations` (turns of `from` and `value`), `image` (a path, a list of paths, or absent), `id`.
        where: Its place, for messages.
        image_folder: What picture paths are relative to.
        source: Short name of the data set.

    Raises:
        InputError: When the row is not of that form.

    Example:
        >>> turns = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A cat."}]
        >>> row = {"id": "7", "image": "a.jpg", "conversations": turns}
        >>> read = parse_conversation(row, Where("f.json", 1, "row"), Path("pictures"))
        >>> read.images, read.turns[0]
        (('pictures/a.jpg',), Turn(role='user', text='What is it?', images=1))
    """
    turns = row.get("conversations")
    if not isinstance(turns, list) or not turns:
        raise InputError(f"{where} has no conversations; write a list of turns with from and value")
    parsed = [_parse_turn(turn, where) for turn in turns]
    kept = _trim(parsed, where)
    images = _image_paths(row.get("image"), where)
    marks = sum(turn.images for turn in kept)
    if marks != len(images):
        raise InputError(f"{where} has {marks} {IMAGE_MARK} in its human turns but {len(images)} images; mend that row")
    return Conversation(
        id=str(row.get("id", where.number)),
        turns=tuple(kept),
        images=tuple(str(image_folder / image) for image in images),
        source=source,
        where=str(where),
        skipped_turns=len(parsed) - len(kept),
    )


def _parse_turn(turn: Any, where: Where) -> Turn:
    """Read one turn."""
    if not isinstance(turn, dict) or "from" not in turn or "value" not in turn:
        raise InputError(f"{where}: a turn has no from and value; mend that row")
    speaker, value = turn["from"], turn["value"]
    if speaker not in ROLES:
        raise InputError(f"{where}: unknown speaker {speaker!r}; known are {', '.join(ROLES)}")
    if not isinstance(value, str):
        raise InputError(f"{where}: a value is {type(value).__name__}, not a text; mend that row")
    role = ROLES[speaker]
    images = value.count(IMAGE_MARK) if role == "user" else 0
    text = (value.replace(IMAGE_MARK, "") if images else value).strip()
    if not text and not images:
        raise InputError(f"{where}: a turn of {speaker} is empty; mend or remove that row")
    return Turn(role, text, images)


def _trim(turns: list[Turn], where: Where) -> list[Turn]:
    """Return the turns from the first question to the last answer, which must alternate; a system text may precede."""
    system = [turn for turn in turns[:1] if turn.role == "system"]
    rest = turns[len(system) :]
    while rest and rest[0].role == "assistant":
        rest = rest[1:]
    while rest and rest[-1].role == "user":
        rest = rest[:-1]
    if not rest:
        raise InputError(f"{where} has no question with an answer; a row needs a human and a gpt turn")
    if [turn.role for turn in rest] != ["user", "assistant"] * (len(rest) // 2):
        raise InputError(f"{where}: human and gpt do not take turns; mend that row")
    return system + rest


def _image_paths(value: Any, where: Where) -> list[str]:
    """Return the row's picture paths."""
    paths = [] if value is None else value if isinstance(value, list) else [value]
    for path in paths:
        if not isinstance(path, str) or not path:
            raise InputError(f"{where}: image is {path!r}; it must be a path or a list of paths")
    return paths
