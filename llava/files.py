"""Reading and writing small files so that nothing is half-written and bad rows are named."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from llava.errors import InputError

CACHE_VARIABLE = "MLLM_PROTECTOR_CACHE"


def cache_dir() -> Path:
    """Return the folder of everything derived: built models, rendered images (it may not exist yet).

    `MLLM_PROTECTOR_CACHE` names it; otherwise it is `mllm-protector` in `$XDG_CACHE_HOME` or `~/.cache`.
    """
    if named := os.environ.get(CACHE_VARIABLE):
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mllm-protector"


def check_new_folder(output: Path) -> None:
    """Raise `InputError` unless `output` can be made as a new folder."""
    if output.is_file():
        raise InputError(f"output {output} is a file; choose a folder that does not exist")
    if output.is_dir() and any(output.iterdir()):
        raise InputError(f"output folder {output} is not empty; choose another, or remove it")


def write_text_atomic(path: str | Path, text: str) -> None:
    """Write `text` to `path` so that a reader sees the old file or the whole new one, never a part.

    Args:
        path: File to write; its folder is made when it is missing.
        text: Content, written as UTF-8 with `\\n` line ends.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        # mkstemp makes the file private to its owner; a result file follows the umask like any other.
        umask = os.umask(0)
        os.umask(umask)
        Path(temporary).chmod(0o666 & ~umask)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    write_text_atomic(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def write_jsonl(path: str | Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write `rows` as JSON Lines, one object a line, atomically."""
    write_text_atomic(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_json(path: str | Path, what: str = "JSON file") -> Any:
    """Read a JSON file.

    Args:
        path: File to read.
        what: What the file is, for the error message ("question file").

    Raises:
        InputError: When the file is missing, not UTF-8 or not JSON; the message names the file and line.
    """
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{what} {path} does not exist; check the path") from None
    except IsADirectoryError:
        raise InputError(f"{what} {path} is a folder; give the file inside it") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{what} {path} is not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except json.JSONDecodeError as error:
        raise InputError(
            f"{what} {path} is not valid JSON (line {error.lineno}: {error.msg}); mend or re-download it"
        ) from None


def iter_jsonl(path: str | Path, what: str = "JSONL file") -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield `(line_number, row)` for each object of a JSON Lines file; blank lines are passed over.

    Raises:
        InputError: When the file is missing, not UTF-8, or a line is not a JSON object; the message names
            file and line.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{what} {path} does not exist; check the path")
    try:
        with path.open(encoding="utf-8") as stream:
            for number, line in enumerate(stream, start=1):
                if not line.strip():
                    continue
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise InputError(f"{what} {path} line {number} is not a JSON object; write one object a line")
                yield number, row
    except UnicodeDecodeError as error:
        raise InputError(f"{what} {path} is not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{what} {path} line {number} is not valid JSON ({error.msg}); mend that line") from None


def read_jsonl(path: str | Path, what: str = "JSONL file") -> list[dict[str, Any]]:
    """Read all rows of a JSON Lines file; see `iter_jsonl` for what is raised."""
    return [row for _, row in iter_jsonl(path, what)]
