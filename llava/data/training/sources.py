"""Where training rows come from: local files and folders, or the Hugging Face hub."""

from __future__ import annotations

import gzip
import json
import lzma
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava.data.training.formats import Where
from llava.errors import HubError, InputError
from llava.files import iter_jsonl, read_json

SUFFIXES = (".jsonl", ".json", ".parquet", ".jsonl.gz", ".jsonl.xz")


@dataclass(frozen=True)
class MixturePart:
    """One data set of a mixture."""

    source: str
    """File, folder or hub id."""
    share: float = 1.0
    """How often an epoch sees each row: 0.5 takes another half each epoch, 2 takes every row twice."""

    @property
    def name(self) -> str:
        """Short name, used in metrics and for options by source.

        Example:
            >>> MixturePart("data/hh_harmless_pairs.jsonl").name, MixturePart("PKU-Alignment/BeaverTails").name
            ('hh_harmless_pairs', 'BeaverTails')
        """
        last = Path(self.source).name
        for suffix in sorted(SUFFIXES, key=len, reverse=True):
            last = last.removesuffix(suffix)
        return last


def parse_mixture(text: str, flag: str = "--train-data") -> list[MixturePart]:
    """Read `SOURCE[:SHARE],SOURCE[:SHARE],…`.

    Raises:
        InputError: When a share is not a positive number, or a source is named twice.

    Example:
        >>> parse_mixture("a.jsonl,org/name:0.5")
        [MixturePart(source='a.jsonl', share=1.0), MixturePart(source='org/name', share=0.5)]
    """
    parts = []
    for item in filter(None, (piece.strip() for piece in text.split(","))):
        source, colon, share_text = item.rpartition(":")
        try:
            share = float(share_text) if colon else 1.0
        except ValueError:
            source, share = item, 1.0  # the colon belongs to the path
        if not colon:
            source = item
        if not 0 < share < float("inf"):
            raise InputError(f"{flag}: the share of {source} is {share_text}; it must be above 0")
        parts.append(MixturePart(source, share))
    names = [part.name for part in parts]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{flag} names {name} twice; give each data set once, with a share such as {name}:2")
    if not parts:
        raise InputError(f"{flag} is empty; give a file, a folder or a hub id")
    return parts


def iter_source(source: str, split: str = "train") -> Iterator[tuple[Where, dict[str, Any]]]:
    """Yield each row of a source with its place.

    Args:
        source: File (`.jsonl`, `.json`, `.parquet`, compressed `.jsonl.gz|xz`), a folder of such files, or a hub id.
        split: `train` or `test`; chooses among a folder's files by name, and the hub data set's split.

    Raises:
        InputError: When the source is neither there nor a hub id that can be loaded, or a file is corrupt.
    """
    path = Path(source)
    if path.is_dir():
        for file in _files_of_split(path, split):
            yield from _iter_file(file)
    elif path.is_file():
        yield from _iter_file(path)
    elif path.suffix in (".jsonl", ".json", ".parquet", ".gz", ".xz") or source.count("/") != 1 or source[0] in "./~":
        raise InputError(f"training data {source} does not exist; check the path")
    else:
        yield from _iter_hub(source, split)


def _files_of_split(folder: Path, split: str) -> list[Path]:
    """Return the data files of a folder: those of the split where names tell, else all of them."""
    files = sorted(path for path in folder.rglob("*") if path.name.endswith(SUFFIXES) and path.is_file())
    named = [path for path in files if any(word in path.name for word in ("train", "test", "valid"))]
    chosen = [path for path in named if split in path.name] if named else files
    if not chosen:
        raise InputError(f"folder {folder} has no {split} file of type {', '.join(SUFFIXES)}; give the file itself")
    return chosen


def _iter_file(path: Path) -> Iterator[tuple[Where, dict[str, Any]]]:
    """Yield the rows of one file."""
    if path.suffix == ".parquet":
        rows = _iter_parquet(path)
    elif path.suffix == ".json":
        rows = _iter_json(path)
    elif path.suffix in (".gz", ".xz"):
        rows = _iter_compressed(path)
    else:
        for number, row in iter_jsonl(path, "training data"):
            yield Where(str(path), number), row
        return
    for number, row in enumerate(rows, start=1):
        yield Where(str(path), number, "row"), row


def _iter_json(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSON list."""
    rows = read_json(path, "training data")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"training data {path} is not a JSON list of objects; save it as JSON Lines")
    yield from rows


def _iter_parquet(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a Parquet file, a batch at a time."""
    import pyarrow
    from pyarrow import parquet

    try:
        for batch in parquet.ParquetFile(path).iter_batches():
            yield from batch.to_pylist()
    except pyarrow.ArrowException as error:
        raise InputError(f"training data {path} is not a Parquet file ({error}); download it again") from None


def _iter_compressed(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of compressed JSON Lines."""
    open_file = gzip.open if path.suffix == ".gz" else lzma.open
    try:
        with open_file(path, "rt", encoding="utf-8") as stream:
            for line in stream:
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise InputError(f"training data {path} holds a line that is not a JSON object; mend it")
                yield row
    except (OSError, EOFError, lzma.LZMAError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"training data {path} cannot be read ({error}); download it again") from None


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
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise HubError(f"data set {source} is neither a local path nor loadable from the hub ({reason})") from None
    for number, row in enumerate(rows, start=1):
        yield Where(source, number, "row"), dict(row)
