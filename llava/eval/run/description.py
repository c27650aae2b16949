"""What `run.json` may hold: every part that is read later, by its type."""

from __future__ import annotations

from typing import Any

from llava.fields import Fields

CHECKPOINTS = ("model", "detector", "detoxifier")
"""Entries of the fingerprint that describe a checkpoint."""
REMEDY = "mend it"


def parse_description(values: Any, where: str) -> dict[str, Any]:
    """Check the content of `run.json`.

    Args:
        values: What the file holds.
        where: The file, for messages.

    Returns:
        The content, with empty `launches` and `versions` where there are none.

    Raises:
        InputError: Naming the first part that is of another type than `generate` writes.

    Example:
        >>> parse_description({"fingerprint": {}, "threshold": "high"}, "run file run.json")
        Traceback (most recent call last):
        llava.errors.InputError: run file run.json: 'threshold' is 'high', not a number from 0 to 1; mend it
    """
    run = Fields(values, where, REMEDY)
    _check_fingerprint(run.inner("fingerprint"))
    _check_settings(Fields(run.mapping("settings", {}), f"{where}, 'settings'", REMEDY))
    benchmark = Fields(run.mapping("benchmark", {}), f"{where}, 'benchmark'", REMEDY)
    benchmark.text("name", "")
    benchmark.texts("missing_images", [])
    benchmark.texts("notes", [])
    run.texts("model_notes", [])
    run.text("device", None)
    run.number("threshold", None, least=0, most=1)
    versions = Fields(run.mapping("versions", {}), f"{where}, 'versions'", REMEDY)
    for name in versions.values:
        versions.text(name)
    launches = run.items("launches", [])
    for number, launch in enumerate(launches, start=1):
        Fields(launch, f"{where}, launch {number}", REMEDY).number("seconds", 0.0, least=0)
    return {**run.values, "versions": dict(versions.values), "launches": launches}


def _check_fingerprint(fingerprint: Fields) -> None:
    """Check what the records depend on: three checkpoints, the questions, and plain values."""
    for name in fingerprint.values:
        if name in CHECKPOINTS:
            if fingerprint.mapping(name, None) is not None:
                checkpoint = fingerprint.inner(name)
                checkpoint.text("name")
                checkpoint.text("path")
                checkpoint.text("digest", None)
        elif name == "questions":
            questions = fingerprint.inner(name)
            questions.integer("count", least=0)
            questions.text("sha256")
        else:
            _check_plain(fingerprint, name)
    fingerprint.integer("batch_size", None, least=1)
    fingerprint.text("dtype", None)


def _check_settings(settings: Fields) -> None:
    """Check the settings as they were given: plain values, those that a summary takes over by their type."""
    for name in settings.values:
        _check_plain(settings, name)
    for name in CHECKPOINTS:
        settings.text(name, None)
    settings.integer("seed", None)
    settings.number("threshold", None, least=0, most=1)


def _check_plain(fields: Fields, name: str) -> None:
    """Refuse a value that no setting has."""
    value = fields.values[name]
    texts = isinstance(value, list) and all(isinstance(item, str) for item in value)
    if not texts and not isinstance(value, (str, int, float, bool, type(None))):
        raise fields.refuse(name, "a plain value or a list of texts")
