"""Reading and writing small files so that nothing is half-written and bad rows are named."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from llava.errors import FailedRunError, InputError

CACHE_VARIABLE = "MLLM_PROTECTOR_CACHE"
DEEPEST = 100
"""Levels of nesting that a JSON or YAML value may have: what reads it afterwards goes down one call a level."""
FULL_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
"""Errors of writing that are no fault of the path."""


def expand_home(path: str | Path) -> str:
    """Return a path with `~` put in full; as it is where there is no such home, or no file can have that name.

    Example:
        >>> expand_home("~\\0"), expand_home("~nobody-has-this-name"), expand_home("./a")
        ('~\\x00', '~nobody-has-this-name', './a')
    """
    try:
        return os.path.expanduser(path)  # noqa: PTH111 - a Path would raise for a name that nobody has
    except ValueError:
        return str(path)


def cache_dir() -> Path:
    """Return the folder of everything derived: built models, rendered images (it may not exist yet).

    `MLLM_PROTECTOR_CACHE` names it; otherwise it is `mllm-protector` in `$XDG_CACHE_HOME` or `~/.cache`.
    """
    if named := os.environ.get(CACHE_VARIABLE):
        return Path(expand_home(named))
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mllm-protector"


@contextlib.contextmanager
def explain_reading(what: str, path: str | Path) -> Iterator[None]:
    """Turn what goes wrong while a file is read into one line that names it.

    Args:
        what: What the file is ("question file").
        path: The file.

    Raises:
        InputError: When the file is missing, a folder, not readable or not UTF-8.
    """
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{what} {path} does not exist; check the path") from None
    except IsADirectoryError:
        raise InputError(f"{what} {path} is a folder; give the file inside it") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{what} {path} is not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except ValueError:
        raise InputError(f"{what} {path} is no name that a file can have; check the path") from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(f"{what} {path} cannot be read ({reason}); check the path and its permissions") from None


@contextlib.contextmanager
def explain_writing(path: str | Path) -> Iterator[None]:
    """Turn what goes wrong while a file is written into one line that names it.

    Raises:
        InputError: When the place cannot be written to.
        FailedRunError: When the disk is full or fails.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        if error.errno in FULL_DISK:
            raise FailedRunError(f"{path} could not be written ({reason}); free space on that disk") from None
        raise InputError(f"output {path} cannot be written ({reason}); choose another place") from None


def describe_os_error(error: BaseException) -> str | None:
    """Return an error of the operating system as one line; None for any other, or one of which nobody knows the file.

    Libraries in Rust (safetensors, tokenizers) have exceptions of their own and name the error at their end.

    Example:
        >>> describe_os_error(PermissionError(13, "Permission denied", "/there/x"))
        '/there/x cannot be used (Permission denied); check the path and its permissions'
        >>> describe_os_error(Exception("Error while serializing: No space left on device (os error 28)"))
        'a file could not be written (No space left on device); free space on that disk'
    """
    named = re.search(r"\(os error (\d+)\)", str(error))
    number = error.errno if isinstance(error, OSError) else int(named[1]) if named else None
    if number is None:
        return None
    path, reason = getattr(error, "filename", None), os.strerror(number)
    if number in FULL_DISK:
        return f"{path or 'a file'} could not be written ({reason}); free space on that disk"
    return None if path is None else f"{path} cannot be used ({reason}); check the path and its permissions"


def write_text_atomic(path: str | Path, text: str) -> None:
    """Write `text` to `path` so that a reader sees the old file or the whole new one, never a part.

    Args:
        path: File to write; its folder is made when it is missing. A symbolic link is followed.
        text: Content, written as UTF-8 with `\\n` line ends.

    Raises:
        InputError: When `path` is a folder, a device or a pipe, or its place cannot be written to.
        FailedRunError: When the disk is full.
    """
    write_bytes_atomic(path, text.encode("utf-8"))


def write_bytes_atomic(path: str | Path, content: bytes) -> None:
    """Write bytes to `path` as `write_text_atomic` does."""
    with replace_file(path) as stream:
        stream.write(content)


@contextlib.contextmanager
def replace_file(path: str | Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of `path` when the block ends well, and leaves nothing behind when it does not.

    Args:
        path: File to write; its folder is made when it is missing. A symbolic link is followed.

    Raises:
        InputError: When `path` is a folder, a device or a pipe, or its place cannot be written to.
        FailedRunError: When the disk is full.
    """
    with explain_writing(path):
        target = Path(os.path.realpath(path))
        if target.exists() and not target.is_file():
            what = "a folder" if target.is_dir() else "no regular file"
            raise InputError(f"output {path} is {what}; give a file name")
        target.parent.mkdir(parents=True, exist_ok=True)
        # The name in front tells whose litter it would be; cut, for the whole must fit into 255 bytes.
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:40]}.", suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            # mkstemp makes the file private to its owner; a result file follows the umask like any other.
            umask = os.umask(0)
            os.umask(umask)
            Path(temporary).chmod(0o666 & ~umask)
            Path(temporary).replace(target)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    write_text_atomic(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def write_jsonl(path: str | Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write `rows` as JSON Lines, one object a line, atomically; one row is held at a time."""
    with replace_file(path) as stream:
        for row in rows:
            stream.write((json.dumps(row, ensure_ascii=False) + "\n").encode())


def parse_json(text: str, where: str, remedy: str = "mend it") -> Any:
    """Parse JSON that others have written.

    Half surrogate pairs, which no tokenizer and no file takes, become U+FFFD.

    Args:
        text: JSON.
        where: File, and line where there is one, for the message.
        remedy: What the user can do, for the message.

    Raises:
        InputError: When it is not JSON, nested too deeply, or holds a number too long to read.
    """
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}: " if error.lineno > 1 else ""
        raise InputError(f"{where} is not valid JSON ({line}{error.msg}); {remedy}") from None
    except RecursionError:
        raise InputError(f"{where} is not valid JSON (nested too deeply); {remedy}") from None
    except ValueError:
        raise InputError(f"{where} is not valid JSON (a number of too many digits); {remedy}") from None
    if text.count("[") + text.count("{") > DEEPEST and measure_depth(value) > DEEPEST:
        raise InputError(f"{where} is nested more than {DEEPEST} levels deep; {remedy}")
    return replace_surrogates(value) if "\\ud" in text or "\\uD" in text else value


def measure_depth(value: Any) -> int:
    """Return how deeply lists and objects are nested, without a call for each level.

    Example:
        >>> measure_depth({"a": [1, [2]]}), measure_depth(1)
        (3, 0)
    """
    depth, level = 0, [value]
    while level:
        inside = [item for item in level if isinstance(item, (list, dict))]
        depth += bool(inside)
        level = [child for item in inside for child in (item.values() if isinstance(item, dict) else item)]
    return depth


def replace_surrogates(value: Any) -> Any:
    """Return a JSON value with U+FFFD for every half surrogate pair in its texts."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [replace_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {replace_surrogates(name): replace_surrogates(item) for name, item in value.items()}
    return value


def read_text(path: str | Path, what: str = "file") -> str:
    """Read a UTF-8 file, with or without a byte order mark.

    Raises:
        InputError: When the file is missing, a folder, not readable or not UTF-8; the message names it.
    """
    with explain_reading(what, path):
        return Path(path).read_text(encoding="utf-8-sig")


def digest_files(paths: Iterable[Path]) -> str:
    """Return a short name of what files hold, one after the other: sixteen hexadecimal digits of SHA-256."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()[:16]


def read_json(path: str | Path, what: str = "JSON file") -> Any:
    """Read a JSON file.

    Args:
        path: File to read.
        what: What the file is, for the error message ("question file").

    Raises:
        InputError: When the file is missing, not UTF-8 or not JSON; the message names the file and line.
    """
    return parse_json(read_text(path, what), f"{what} {path}", "mend or re-download it")


def iter_jsonl(path: str | Path, what: str = "JSONL file") -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield `(line_number, row)` for each object of a JSON Lines file; blank lines are passed over.

    Raises:
        InputError: When the file is missing, not UTF-8, or a line is not a JSON object; the message names
            file and line.
    """
    with contextlib.ExitStack() as stack:
        with explain_reading(what, path):
            stream = stack.enter_context(Path(path).open(encoding="utf-8-sig"))
        number = 0
        while True:
            # Reading alone is explained: what the caller does with a row is no fault of the file.
            with explain_reading(what, path):
                line = stream.readline()
            if not line:
                return
            number += 1
            if not line.strip():
                continue
            row = parse_json(line, f"{what} {path} line {number}", "mend that line")
            if not isinstance(row, dict):
                raise InputError(f"{what} {path} line {number} is not a JSON object; write one object a line")
            yield number, row


def read_jsonl(path: str | Path, what: str = "JSONL file") -> list[dict[str, Any]]:
    """Read all rows of a JSON Lines file; see `iter_jsonl` for what is raised."""
    return [row for _, row in iter_jsonl(path, what)]
