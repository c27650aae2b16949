"""`state_head.json`: how a head on states is used, and which model it belongs to."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava.errors import InputError
from llava.fields import Fields
from llava.files import read_json, write_json

CONFIG_NAME, WEIGHTS_NAME = "state_head.json", "head.safetensors"
WHAT = "state head"
REMEDY = "train the head again"
POOLINGS = {"mean": 1, "mean+last": 2}
"""What a head reads of an answer → directions that it has: the mean of the states so far, and the last one as well."""
MOST_LAYERS = 1000
WIDEST = 1 << 20


@dataclass(frozen=True)
class Cascade:
    """Between which scores a detector decides, and what that did to the rows it was chosen on."""

    detector: str
    """The detector as it was named."""
    key: str
    """What tells it from others: a digest, or else its path."""
    low: float
    """Below this score an answer passes without the detector."""
    high: float
    """From this score an answer is flagged without it; above 1 the head alone flags nothing."""
    asked: float = 0.0
    """Share of the harmless rows that the detector had to read."""
    recall: float = 0.0
    """Of the cascade."""
    false_positive_rate: float = 0.0
    """Of the cascade."""
    detector_recall: float = 0.0
    """Of the detector alone, on the same rows."""
    detector_false_positive_rate: float = 0.0
    """Of the detector alone, on the same rows."""

    @classmethod
    def from_fields(cls, fields: Fields) -> Cascade:
        """Read a cascade.

        Raises:
            InputError: Naming the field that is absent or wrong.
        """
        fields.refuse_unknown({field.name for field in dataclasses.fields(cls)})
        low = fields.number("low", least=0, most=1)
        rates = ("asked", "recall", "false_positive_rate", "detector_recall", "detector_false_positive_rate")
        return cls(
            fields.text("detector"),
            fields.text("key"),
            low,
            fields.number("high", least=low, most=2),
            **{name: fields.number(name, 0.0, least=0, most=1) for name in rates},
        )


@dataclass(frozen=True)
class StateHeadConfig:
    """Settings stored beside a head's weights."""

    model: str
    """The model whose states it reads, as it was named in training, for people."""
    model_type: str
    """The `model_type` of its language model."""
    num_layers: int
    """How many layers that has."""
    hidden_size: int
    """Size of a state, H."""
    layer: int
    """The states behind so many of its layers are read."""
    pooling: str = "mean"
    """What is read of an answer's states: `mean` of those so far, or `mean+last`."""
    positive_label: str = "harmful"
    """What a high score means; nothing else is known here."""
    threshold: float = 0.5
    """An answer is flagged when its score is at least this, where no detector is asked."""
    temperature: float = 1.0
    """The logit is divided by this before the sigmoid (temperature scaling, arXiv 1706.04599)."""
    cascade: Cascade | None = None
    """What is left to a detector; None until `mllm-protector calibrate --state-head` has chosen it."""

    def __post_init__(self) -> None:
        """Check every field; raise `InputError` naming the one that is wrong."""
        fields = Fields(dataclasses.asdict(self), CONFIG_NAME)
        fields.text("model")
        fields.text("model_type")
        fields.integer("num_layers", least=1, most=MOST_LAYERS)
        fields.integer("hidden_size", least=1, most=WIDEST)
        fields.integer("layer", least=1, most=self.num_layers)
        fields.text("pooling", choices=tuple(POOLINGS))
        fields.text("positive_label", choices=("harmful",))
        if fields.number("threshold", most=1) <= 0:
            raise fields.refuse("threshold", "a number above 0 and at most 1")
        fields.number("temperature", least=1e-3, most=1e3)

    @classmethod
    def load(cls, folder: Path) -> StateHeadConfig:
        """Read the config of the head in a folder.

        Raises:
            InputError: When it is absent or corrupt, or has unknown fields or values of the wrong type.
        """
        path = folder / CONFIG_NAME
        if not path.is_file():
            raise InputError(f"{WHAT} {folder} has no {CONFIG_NAME}; give the folder of a trained head")
        fields = Fields(read_json(path, WHAT), f"{WHAT} {path}", REMEDY)
        fields.refuse_unknown({field.name for field in dataclasses.fields(cls)})
        values: dict[str, Any] = {
            "model": fields.text("model"),
            "model_type": fields.text("model_type"),
            "num_layers": fields.integer("num_layers"),
            "hidden_size": fields.integer("hidden_size"),
            "layer": fields.integer("layer"),
        }
        optional = {name: value for name, value in fields.values.items() if name not in {*values, "cascade"}}
        cascade = None if fields.mapping("cascade", None) is None else Cascade.from_fields(fields.inner("cascade"))
        try:
            return cls(**values, **optional, cascade=cascade)
        except InputError as error:
            raise InputError(f"{WHAT} {folder}: {error}") from None

    def save(self, folder: Path) -> None:
        """Write the config into a folder, atomically."""
        write_json(folder / CONFIG_NAME, dataclasses.asdict(self))
