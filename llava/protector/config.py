"""`protector_config.json`: how a detector or detoxifier checkpoint wants to be used."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava.constants import DETECTOR_TEMPLATES, DETOXIFIER_TEMPLATES
from llava.errors import InputError
from llava.files import read_json, write_json

CONFIG_NAME = "protector_config.json"
POOLINGS = ("last", "mean", "mean_response")


@dataclass(frozen=True)
class ProtectorConfig:
    """Settings stored beside a checkpoint and read again wherever it is used.

    A folder without the file is read as a released checkpoint of the reference project: label 1 means safe,
    last-token pooling, question and answer in the text (see `llava/constants.py` for the sources).
    """

    kind: str
    """`detector` or `detoxifier`."""
    base_model: str | None = None
    """Hub id or path of the base model that the adapter was trained on; None for a merged checkpoint."""
    text_form: str = "prompt+response"
    """What the model reads: `response`, or `prompt+response`."""
    max_length: int = 512
    """Longest input in tokens; longer responses are scored in overlapping windows."""
    positive_label: str = "safe"
    """Detector: what a positive logit means, `safe` or `harmful`."""
    pooling: str = "last"
    """Detector: `last` reads the last token's hidden state, `mean` the mean over all tokens, `mean_response` the mean
    over the response's own, which have read the question by attention."""
    num_layers: int | None = None
    """Detector: how many transformer layers of the base are kept; None keeps all."""
    threshold: float = 0.5
    """Detector: a response is flagged when its calibrated harm score is at least this."""
    temperature: float = 1.0
    """Detector: the logit is divided by this before the sigmoid (temperature scaling, arXiv 1706.04599)."""

    def __post_init__(self) -> None:
        """Check every field; raise `InputError` naming the one that is wrong."""
        templates = DETECTOR_TEMPLATES if self.kind == "detector" else DETOXIFIER_TEMPLATES
        rules = [
            ("kind", self.kind in ("detector", "detoxifier"), "detector or detoxifier"),
            ("text_form", self.text_form in templates, " or ".join(templates)),
            ("max_length", isinstance(self.max_length, int) and self.max_length >= 8, "a whole number from 8"),
            ("positive_label", self.positive_label in ("safe", "harmful"), "safe or harmful"),
            ("pooling", self.pooling in POOLINGS, ", ".join(POOLINGS[:-1]) + f" or {POOLINGS[-1]}"),
            ("num_layers", self.num_layers is None or self.num_layers >= 1, "a whole number from 1, or null"),
            ("threshold", 0.0 < self.threshold <= 1.0, "a number above 0 and at most 1"),
            ("temperature", self.temperature > 0.0, "a number above 0"),
        ]
        for name, holds, wanted in rules:
            if not holds:
                raise InputError(f"{CONFIG_NAME}: {name} is {getattr(self, name)!r}; it must be {wanted}")

    @classmethod
    def load(cls, folder: str | Path, kind: str) -> ProtectorConfig:
        """Read the config of the checkpoint in `folder`.

        Args:
            folder: Checkpoint folder.
            kind: What the caller needs, `detector` or `detoxifier`.

        Raises:
            InputError: When the file is corrupt, has unknown keys, or belongs to the other kind.
        """
        path = Path(folder) / CONFIG_NAME
        if not path.exists():
            return cls(kind=kind)
        values: dict[str, Any] = read_json(path, "checkpoint config")
        known = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(values, dict) or set(values) - known:
            extra = ", ".join(sorted(set(values) - known)) if isinstance(values, dict) else "not an object"
            raise InputError(f"{path}: unknown content ({extra}); known keys are {', '.join(sorted(known))}")
        if values.get("kind", kind) != kind:
            raise InputError(f"{folder} is a {values['kind']}, not a {kind}; give a {kind} checkpoint")
        try:
            return cls(**{"kind": kind, **values})
        except InputError as error:
            raise InputError(f"{folder}: {error}") from None
        except TypeError as error:
            raise InputError(f"{path}: a value has the wrong type ({error}); mend it by hand or re-export") from None

    def save(self, folder: str | Path) -> None:
        """Write the config into `folder`, atomically."""
        write_json(Path(folder) / CONFIG_NAME, dataclasses.asdict(self))
