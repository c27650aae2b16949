"""Visual instruction data in LLaVA's form: rows of `id`, `image` and `conversations`, checked before anything runs."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from llava.data.rows.columns import UnreadColumns, list_images, refuse_media
from llava.data.rows.messages import ROLES
from llava.data.rows.streams import Where
from llava.data.training.sources import MixturePart, iter_source
from llava.errors import InputError
from llava.fields import describe_value
from llava.places import file_exists

logger = logging.getLogger(__name__)

IMAGE_MARK = "<image>"
"""Where the picture stands in a human turn."""

OTHER_MARKS = ("<video>", "<audio>")
"""Where media stand that are not read."""

READ = ("id", "image", "images", "image_path", "conversations", "system")
"""Columns of a row that are read."""


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
    is_file = cache(file_exists)
    conversations: list[Conversation] = []
    for part in parts:
        folder = Path(image_folder) if image_folder is not None else _folder_of(part.source)
        before = len(conversations)
        unread = UnreadColumns(part.source)
        for where, row in iter_source(part.source, split):
            conversation = parse_conversation(row, where, folder, part.name)
            for image in conversation.images:
                if not is_file(Path(image)):
                    raise InputError(f"{where}: image {image} does not exist; check the row and --image-folder")
            conversations.append(conversation)
            unread.see(row, READ)
        unread.log(logger)
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
        row: `conversations` (turns of `from` and `value`), `image` (a path, a list of paths, or absent), `id`,
            `system` (a text before the first turn, or absent).
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
    refuse_media(row, where)
    turns = row.get("conversations")
    if not isinstance(turns, list) or not turns:
        raise InputError(f"{where} has no conversations; write a list of turns with from and value")
    parsed = [*_system_turn(row, where), *(_parse_turn(turn, where) for turn in turns)]
    kept = _trim(parsed, where)
    images = list_images(row, where)
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
    if not isinstance(speaker, str) or speaker not in ROLES:
        raise InputError(f"{where}: unknown speaker {describe_value(speaker)}; known are {', '.join(ROLES)}")
    if not isinstance(value, str):
        raise InputError(f"{where}: a value is {type(value).__name__}, not a text; mend that row")
    if turn.get("weight") not in (None, 1) or isinstance(turn.get("weight"), bool):
        raise InputError(f"{where}: a turn has a weight, which is not read; every answer counts; remove it")
    role = ROLES[speaker]
    images = value.count(IMAGE_MARK) if role == "user" else 0
    if images > 1:
        _refuse_scattered(value, where)
    for mark in OTHER_MARKS:
        if role == "user" and mark in value:
            raise InputError(f"{where}: a turn speaks of {mark}, which is not read; remove that row")
    text = (value.replace(IMAGE_MARK, "") if images else value).strip()
    if not text and not images:
        raise InputError(f"{where}: a turn of {speaker} is empty; mend or remove that row")
    return Turn(role, text, images)


def _refuse_scattered(value: str, where: Where) -> None:
    """Refuse several images with text between them: a model is shown them in front of the text, all together."""
    _, *between, _ = value.split(IMAGE_MARK)
    if any(text.strip() for text in between):
        raise InputError(f"{where}: text stands between the {IMAGE_MARK} of a turn; put them together, before the text")


def _system_turn(row: Mapping[str, Any], where: Where) -> list[Turn]:
    """Return the turn of a row's own system text; none without it."""
    text = row.get("system")
    if text in (None, ""):
        return []
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"{where}: system is {describe_value(text)}; it must be a text")
    return [Turn("system", text.strip())]


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
