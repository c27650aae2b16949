"""Where training rows come from: local files and folders, or the Hugging Face hub."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llava.data.rows.reading import SUFFIXES, is_row_file, iter_rows
from llava.data.rows.streams import COMPRESSIONS, SAVED_DATASET, Where, refuse_saved_dataset
from llava.errors import HubError, InputError, first_line
from llava.files import expand_home
from llava.options import QUOTES, split_items, unquote
from llava.places import path_exists

logger = logging.getLogger(__name__)

_WHAT = "training data"
_SPLITS = {
    "train": re.compile(r"(?<![a-z])train(?:ing|set|data|val)?(?![a-z])"),
    "test": re.compile(r"(?<![a-z])test(?:ing|set|data)?(?![a-z])"),
    "validation": re.compile(r"(?<![a-z])(?:valid(?:ation)?|val|dev|eval(?:uation)?|held[-_ ]?out)(?![a-z])"),
}
"""Words by which a file or a folder says of which split it is."""


@dataclass(frozen=True)
class MixturePart:
    """One data set of a mixture."""

    source: str
    """File, folder or hub id."""
    share: float = 1.0
    """How often an epoch sees each row: 0.5 takes another half each epoch, 2 takes every row twice."""
    label: str = ""
    """Name where the last part of the source is not enough to tell it from others."""

    @property
    def name(self) -> str:
        """Short name, used in metrics and for options by source.

        Example:
            >>> MixturePart("data/hh_harmless_pairs.jsonl").name, MixturePart("PKU-Alignment/BeaverTails").name
            ('hh_harmless_pairs', 'BeaverTails')
        """
        return self.label or shorten_name(Path(self.source).name)


def shorten_name(name: str) -> str:
    """Return a file's name without the endings of files of rows.

    Example:
        >>> shorten_name("train.jsonl.gz"), shorten_name("v1.5")
        ('train', 'v1.5')
    """
    for suffix in (*COMPRESSIONS, *SUFFIXES):
        if name.lower().endswith(suffix):
            name = name[: -len(suffix)]
    return name


def parse_mixture(text: str, flag: str = "--train-data") -> list[MixturePart]:
    """Read `SOURCE[:SHARE],SOURCE[:SHARE],…`.

    A path that holds a comma stands in quotes, or is one that exists. Sources of one name are told apart by
    their folders.

    Raises:
        InputError: When a share is not a positive number, or a source is named twice.

    Example:
        >>> parse_mixture("a.jsonl,org/name:0.5")
        [MixturePart(source='a.jsonl', share=1.0, label=''), MixturePart(source='org/name', share=0.5, label='')]
        >>> [part.name for part in parse_mixture("x/train.jsonl,y/train.jsonl")]
        ['x/train', 'y/train']
    """
    parts = []
    for item in _split_sources(text):
        source, share_text = _split_share(item)
        if not source.strip():
            raise InputError(f"{flag} {text} has an empty name; give a file, a folder or a hub id")
        share = float(share_text) if share_text else 1.0
        if not 0 < share < float("inf"):
            raise InputError(f"{flag}: the share of {source} is {share_text}; it must be above 0")
        parts.append(MixturePart(source, share))
    if not parts:
        raise InputError(f"{flag} is empty; give a file, a folder or a hub id")
    return _tell_apart(parts, flag)


def _split_sources(text: str) -> list[str]:
    """Split a list of sources at its commas, but not inside quotes, nor inside a path that exists."""
    if any(quote in text for quote in QUOTES):
        return split_items(text)
    pieces, items = text.split(","), []
    while pieces:
        joined = ((size, ",".join(pieces[:size]).strip()) for size in range(len(pieces), 1, -1))
        size, item = next(
            ((s, path) for s, path in joined if path_exists(_split_share(path)[0])), (1, pieces[0].strip())
        )
        items.append(item)
        pieces = pieces[size:]
    return [item for item in items if item]


def _split_share(item: str) -> tuple[str, str]:
    """Part a source, without quotes, from its share; what is no number behind a colon belongs to the path."""
    source, colon, share = item.rpartition(":")
    try:
        float(share)
    except ValueError:
        colon = ""
    return (unquote(source), share.strip()) if colon and source else (unquote(item), "")


def _tell_apart(parts: Sequence[MixturePart], flag: str) -> list[MixturePart]:
    """Return the parts with names that differ: those of one name get as many of their folders as it takes."""
    seen: set[str] = set()
    for part in parts:
        place = _resolve(part.source)
        if place in seen:
            raise InputError(
                f"{flag} names {part.name} twice; give each data set once, with a share such as {part.source}:2"
            )
        seen.add(place)
    names = [part.name for part in parts]
    told = []
    for number, part in enumerate(parts):
        if names.count(part.name) == 1:
            told.append(part)
            continue
        others = [other.source for spot, other in enumerate(parts) if spot != number and names[spot] == part.name]
        told.append(replace(part, label=_tell_from(part.source, others)))
    return told


def _resolve(source: str) -> str:
    """Return a path with its links followed; a name that no file can have as it is."""
    try:
        return os.path.realpath(source)
    except (OSError, ValueError):
        return source


def _tell_from(source: str, others: Sequence[str]) -> str:
    """Return the shortest end of a path, without the ending of its file, that no other path has; else the path."""
    for depth in range(2, len(Path(source).parts) + 1):
        end = _end_of(source, depth)
        if all(end != _end_of(other, depth) for other in others):
            return end
    return source


def _end_of(source: str, depth: int) -> str:
    """Return the last parts of a path, the file without its ending."""
    path = Path(source)
    return "/".join((*path.parts[-depth:-1], shorten_name(path.name)))


def iter_source(source: str, split: str = "train") -> Iterator[tuple[Where, dict[str, Any]]]:
    """Yield each row of a source with its place.

    Args:
        source: A file of rows (`llava.data.rows.reading`), a folder with such files, or a data set on the hub
            (`owner/name`; offline its local cache).
        split: `train` or `test`. In a folder, files and folders that are named after a split are used for that split
            only; on the hub, it is the data set's split whose name contains the word.

    Raises:
        InputError: When the source is missing, unreadable or corrupt.
    """
    path = Path(expand_home(source))
    if path_exists(path) and path.is_dir():
        for file in _files_of_split(path, split):
            yield from iter_rows(file, _WHAT)
    elif path_exists(path):
        yield from iter_rows(path, _WHAT)
    elif is_row_file(path) or source.count("/") != 1 or source[0] in "./~":
        raise InputError(f"training data {source} does not exist; check the path")
    else:
        yield from _iter_hub(source, split)


def _files_of_split(folder: Path, split: str) -> list[Path]:
    """Return the data files of a folder: those of the split where names tell, else all of them.

    What the file's own name does not say, its folder does, the nearest one first.
    """
    refuse_saved_dataset(folder, _WHAT)
    files = sorted(path for path in folder.rglob("*") if _is_data_file(path.relative_to(folder)) and path.is_file())
    named = {path: found for path in files if (found := find_split(path.relative_to(folder)))}
    chosen = [path for path in files if named.get(path) == split] if named else files
    if not chosen:
        raise InputError(f"folder {folder} has no {split} file of type {', '.join(SUFFIXES)}; give the file itself")
    left_out = [str(path.relative_to(folder)) for path in files if named and named.get(path) != split]
    if left_out:
        shown = ", ".join(left_out[:5]) + (" …" if len(left_out) > 5 else "")
        logger.info("%s: %d files of other splits are not read: %s", folder, len(left_out), shown)
    return chosen


def _is_data_file(path: Path) -> bool:
    """Tell whether a file of a folder holds rows: not hidden, and not what libraries keep beside them."""
    hidden = any(part.startswith(".") for part in path.parts)
    return not hidden and is_row_file(path) and path.name not in (*SAVED_DATASET, "dataset_infos.json")


def find_split(path: Path) -> str:
    """Return the split after which a file or the nearest folder above it is named; empty when none is.

    Example:
        >>> find_split(Path("train/0.jsonl")), find_split(Path("train/dev.jsonl")), find_split(Path("latest.jsonl"))
        ('train', 'validation', '')
    """
    for part in reversed(path.parts):
        words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", part).lower()
        found = [split for split, pattern in _SPLITS.items() if pattern.search(words)]
        if found:
            return found[-1]  # a name with two of the words is not trained on
    return ""


def _iter_hub(source: str, split: str) -> Iterator[tuple[Where, dict[str, Any]]]:
    """Yield the rows of a data set on the hub (or in its local cache)."""
    import datasets
    from huggingface_hub.errors import HfHubHTTPError

    try:
        names = datasets.get_dataset_split_names(source)
        # Some data sets call their splits by size, e.g. BeaverTails' 330k_train.
        name = next((known for known in sorted(names, reverse=True) if split in known), None)
        if name is None:
            raise InputError(f"data set {source} has no {split} split ({', '.join(names)}); give a local file")
        rows = datasets.load_dataset(source, split=name)
    except (ConnectionError, OSError, ValueError, HfHubHTTPError) as error:
        if isinstance(error, InputError):
            raise
        reason = first_line(error)
        raise HubError(f"data set {source} is neither a local path nor loadable from the hub ({reason})") from None
    for number, row in enumerate(rows, start=1):
        yield Where(source, number, "row"), dict(row)
