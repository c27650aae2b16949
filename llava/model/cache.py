"""The cache folder of built models, and building a folder in it exactly once.

Everything that is derived (the base language model, the composed LLaVA, converted checkpoints) lies here. A folder
appears by one rename when it is whole, so a reader never sees half a model; a lock lets one process build while the
others wait and then use its result.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from llava.errors import FailedRunError, InputError
from llava.files import CACHE_VARIABLE, FULL_DISK, cache_dir, explain_reading, explain_writing

__all__ = ["build_once", "cache_dir", "folder_fingerprint", "write_folder_atomic"]


def folder_fingerprint(folder: Path) -> str:
    """Return a short key of a model folder's present content.

    Built from each file's name, size and modification time: hashing the weights of a 7B would take longer than
    loading them.
    """
    digest = hashlib.sha256(os.fsencode(folder.resolve()))
    with explain_reading("model folder", folder):
        for file in sorted(path for path in folder.iterdir() if path.is_file()):
            state = file.stat()
            digest.update(os.fsencode(file.name) + f":{state.st_size}:{state.st_mtime_ns};".encode())
    return digest.hexdigest()[:16]


def build_once(target: Path, build: Callable[[Path], None]) -> Path:
    """Return `target`, building it first when it is not there.

    Args:
        target: Folder wanted. When it exists it is whole, and is returned at once.
        build: Fills the empty folder it is given; that folder becomes `target` by one rename. When it raises, nothing
            is left behind.

    Returns:
        `target`.

    Raises:
        InputError: When the cache folder cannot be written.
    """
    from filelock import FileLock

    if target.is_dir():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{target}.lock")
        lock.acquire()
    except OSError as error:
        raise InputError(
            f"cache folder {target.parent} cannot be written ({error.strerror}); set {CACHE_VARIABLE} to another folder"
        ) from None
    try:
        if not target.is_dir():
            write_folder_atomic(target, build)
    finally:
        lock.release()
    return target


def write_folder_atomic(target: Path, build: Callable[[Path], None]) -> None:
    """Fill a new folder beside `target` with `build`, then rename it to `target`, which must not exist or be empty.

    Raises:
        InputError: When the place cannot be written to.
        FailedRunError: When the disk is full.
    """
    with explain_writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        # The name in front tells whose litter it would be; cut, for the whole must fit into 255 bytes.
        temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name[:40]}."))
    try:
        build(temporary)
        # mkdtemp makes the folder private to its owner; a shared cache follows the umask like any other folder.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o777 & ~umask)
        temporary.replace(target)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if error.errno in FULL_DISK:
            raise FailedRunError(f"{target} could not be written ({error.strerror}); free space on that disk") from None
        raise
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
