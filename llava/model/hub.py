"""Finding a model by folder or hub id, with one-line errors."""

from __future__ import annotations

import os
import re
from pathlib import Path

from llava.errors import HubError, InputError
from llava.files import expand_home

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def locate(path_or_id: str, what: str = "model") -> str:
    """Return `path_or_id` when it is a folder or can be a hub id.

    Args:
        path_or_id: What the user gave.
        what: What it is, for the message.

    Raises:
        InputError: When it is neither.
    """
    path = expand_home(path_or_id)
    # These two take any text; a Path complains of names that are too long.
    if os.path.isdir(path):  # noqa: PTH112
        return path
    if os.path.isfile(path):  # noqa: PTH113
        raise InputError(f"{what} {path_or_id} is a file; give the folder that holds config.json")
    if not HUB_ID.fullmatch(path_or_id):
        raise InputError(f"{what} folder {path_or_id} does not exist; check the path")
    return path_or_id


def fetch(path_or_id: str, what: str, remedy: str, patterns: list[str] | None = None) -> Path:
    """Return the folder of a model, downloading it from the hub when it is not a folder.

    Args:
        path_or_id: Folder or hub id.
        what: What it is, for the message ("vision tower").
        remedy: What the user can do when it cannot be had ("give --vision-tower").
        patterns: File names to download; None for all.

    Raises:
        InputError: When it is neither a folder nor can be a hub id; HubError when the hub does not give it.
    """
    from huggingface_hub import snapshot_download

    path = expand_home(path_or_id)
    if os.path.isdir(path):  # noqa: PTH112
        return Path(path)
    if not HUB_ID.fullmatch(path_or_id):
        raise InputError(f"{what} {path_or_id} does not exist; {remedy}")
    try:
        return Path(snapshot_download(path_or_id, allow_patterns=patterns))
    except Exception as error:  # noqa: BLE001 - the client raises its transport's own errors, whatever that is
        reason = " ".join(str(error).split())[:160]
        raise HubError(
            f"{what} {path_or_id} is no folder and could not be fetched from the hub ({reason}); {remedy}"
        ) from None
