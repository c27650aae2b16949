"""`protector_config.json`: how a detector or detoxifier checkpoint wants to be used."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from llava.constants import DETECTOR_TEMPLATES, DETOXIFIER_TEMPLATES
from llava.errors import InputError
from llava.fields import Fields
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
        row = Fields(dataclasses.asdict(self), CONFIG_NAME)
        row.text("kind", choices=("detector", "detoxifier"))
        row.text("base_model", None)
        row.text("text_form", choices=tuple(DETECTOR_TEMPLATES if self.kind == "detector" else DETOXIFIER_TEMPLATES))
        # 64.0 is a whole number, and is stored as one.
        object.__setattr__(self, "max_length", row.integer("max_length", least=8))
        row.text("positive_label", choices=("safe", "harmful"))
        row.text("pooling", choices=POOLINGS)
        object.__setattr__(self, "num_layers", row.integer("num_layers", None, least=1))
        if not 0 < row.number("threshold") <= 1:
            raise row.refuse("threshold", "a number above 0 and at most 1")
        if not row.number("temperature") > 0:
            raise row.refuse("temperature", "a number above 0")

    @classmethod
    def load(cls, folder: str | Path, kind: str) -> ProtectorConfig:
        """Read the config of the checkpoint in `folder`.

        Args:
            folder: Checkpoint folder.
            kind: What the caller needs, `detector` or `detoxifier`.

        Raises:
            InputError: When the file is corrupt, has unknown keys or values of the wrong type, or belongs to the other
                kind.
        """
        path = Path(folder) / CONFIG_NAME
        if not path.exists():
            return cls(kind=kind)
        row = Fields(read_json(path, "checkpoint config"), str(path))
        row.refuse_unknown({field.name for field in dataclasses.fields(cls)})
        found = row.text("kind", kind, choices=("detector", "detoxifier"))
        if found != kind:
            raise InputError(f"{folder} is a {found}, not a {kind}; give a {kind} checkpoint")
        try:
            return cls(**{"kind": kind, **row.values})
        except InputError as error:
            raise InputError(f"{folder}: {error}") from None

    def save(self, folder: str | Path) -> None:
        """Write the config into `folder`, atomically."""
        write_json(Path(folder) / CONFIG_NAME, dataclasses.asdict(self))
