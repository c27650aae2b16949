"""`protector_config.json`: how a detector or detoxifier checkpoint wants to be used."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava.constants import DETECTOR_TEMPLATES, DETOXIFIER_TEMPLATES
from llava.errors import InputError
from llava.fields import Fields
from llava.files import read_json, write_json

CONFIG_NAME = "protector_config.json"
KINDS = ("detector", "detoxifier")
LABELS = ("safe", "harmful")
POOLINGS = ("last", "mean", "mean_response")
LONGEST_INPUT = 1 << 20
MOST_LAYERS = 1000
FILLERS = ("is", "label", "content", "response", "text", "prompt")
NEGATIONS = ("not", "non", "no")
HARMFUL_NAMES = frozenset(
    {
        *("harmful", "harm", "unsafe", "toxic", "toxicity", "dangerous", "hate", "hateful", "offensive", "abusive"),
        *("harms", "violation", "violating"),
    }
)
SAFE_NAMES = frozenset({"safe", "safety", "harmless", "harmlessness", "benign", "nontoxic", "nonharmful", "innocuous"})


@dataclass(frozen=True)
class ProtectorConfig:
    """Settings stored beside a checkpoint and read again wherever it is used.

    A folder without the file is read as a released checkpoint of the reference project: label 1 means safe (unless a
    classifier's `id2label` says otherwise), last-token pooling, question and answer in the text (see
    `llava/constants.py` for the sources).
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
    stretches: tuple[int, ...] = ()
    """Detector with `mean_response`: a response is judged by the highest of the means over the whole of it and over
    every run of so many tokens; empty takes the whole alone."""
    stretch_margin: float = 0.0
    """Detector with `stretches`: taken off the logit of a run; the highest of many is above the mean by chance."""
    num_layers: int | None = None
    """Detector: how many transformer layers of the base are kept; None keeps all."""
    threshold: float = 0.5
    """Detector: a response is flagged when its calibrated harm score is at least this."""
    temperature: float = 1.0
    """Detector: the logit is divided by this before the sigmoid (temperature scaling, arXiv 1706.04599)."""
    normalise: bool = False
    """Detector: whether disguises are taken off before scoring, and hidden texts scored too (`normalise.py`)."""

    def __post_init__(self) -> None:
        """Check every field; raise `InputError` naming the one that is wrong."""
        fields = Fields(dataclasses.asdict(self), CONFIG_NAME)
        kind = fields.text("kind", choices=KINDS)
        fields.text("base_model", None)
        fields.text("text_form", choices=tuple(DETECTOR_TEMPLATES if kind == "detector" else DETOXIFIER_TEMPLATES))
        fields.text("positive_label", choices=LABELS)
        fields.text("pooling", choices=POOLINGS)
        fields.flag("normalise")
        whole = {
            "max_length": fields.integer("max_length", least=8, most=LONGEST_INPUT),
            "num_layers": fields.integer("num_layers", None, least=1, most=MOST_LAYERS),
        }
        for name, value in whole.items():
            object.__setattr__(self, name, value)  # 18.0 counts as 18, and slices nothing
        object.__setattr__(self, "stretches", self.read_stretches())
        fields.number("stretch_margin", least=0, most=100)
        if fields.number("threshold", most=1) <= 0:
            raise fields.refuse("threshold", "a number above 0 and at most 1")
        # Outside these limits every score is the same half, or 0 and 1.
        fields.number("temperature", least=1e-3, most=1e3)

    def read_stretches(self) -> tuple[int, ...]:
        """Return the stretches as whole numbers, each once and in order; raise `InputError` for anything else."""
        wanted = f"a list of whole numbers from 1 to {self.max_length}"
        fields = Fields({"stretches": self.stretches}, CONFIG_NAME)
        if not isinstance(self.stretches, list | tuple):
            raise fields.refuse("stretches", wanted)
        for length in self.stretches:
            if isinstance(length, bool) or not isinstance(length, int) or not 1 <= length <= self.max_length:
                raise fields.refuse("stretches", wanted)
        if self.stretches and self.pooling != "mean_response":
            raise InputError(f"{CONFIG_NAME} has stretches with pooling {self.pooling}; they go with mean_response")
        if self.stretches and self.positive_label != "harmful":
            raise InputError(f"{CONFIG_NAME} has stretches with positive_label safe; the highest must be the worst")
        return tuple(sorted(set(self.stretches)))

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
        values: dict[str, Any] = {}
        if path.exists():
            fields = Fields(read_json(path, "checkpoint config"), str(path))
            fields.refuse_unknown({field.name for field in dataclasses.fields(cls)})
            if fields.text("kind", kind, choices=KINDS) != kind:
                raise InputError(f"{folder} is a {fields.text('kind')}, not a {kind}; give a {kind} checkpoint")
            values = dict(fields.values)
        if kind == "detector" and "positive_label" not in values:
            values["positive_label"] = read_positive_label(Path(folder))
        try:
            return cls(**{"kind": kind, **values})
        except InputError as error:
            raise InputError(f"{folder}: {error}") from None

    def save(self, folder: str | Path) -> None:
        """Write the config into `folder`, atomically."""
        write_json(Path(folder) / CONFIG_NAME, dataclasses.asdict(self))


def read_positive_label(folder: Path) -> str:
    """Return what a positive logit of a detector means that has no `positive_label` of its own.

    The name that a one-label classifier gives its label in `id2label` decides. An adapter, and a label without a name
    (`LABEL_0`), is read as the released detectors are: `safe`.

    Args:
        folder: The checkpoint.

    Returns:
        `safe` or `harmful`.

    Raises:
        InputError: When the label's name says neither, or `id2label` is no table of names.
    """
    path = folder / "config.json"
    if not path.is_file() or (folder / "adapter_config.json").is_file():
        return "safe"
    fields = Fields(read_json(path, "model config"), f"model config {path}", "fetch the model again")
    labels = fields.mapping("id2label", None)
    # Another number of labels is no detector and is refused as such, where the network is known.
    if labels is None or len(labels) != 1:
        return "safe"
    name = Fields(labels, f"model config {path}, 'id2label'", "fetch the model again").text(next(iter(labels)))
    meaning = parse_label(name)
    if meaning is None:
        raise InputError(
            f"detector {folder} calls its label {name!r}, which says neither harmful nor safe; write "
            f'{{"kind": "detector", "positive_label": "harmful"}} (or "safe") into {folder / CONFIG_NAME}'
        )
    return meaning


def parse_label(name: str) -> str | None:
    """Return what a label's name means: `safe`, `harmful`, or None when it is unclear.

    Example:
        >>> [parse_label(name) for name in ("HARMFUL", "not_toxic", "is-safe", "LABEL_0", "score")]
        ['harmful', 'safe', 'safe', 'safe', None]
    """
    if re.fullmatch(r"LABEL_\d+", name):
        return "safe"
    words = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())
    words = [word for word in words if word not in FILLERS]
    negated = len(words) == 2 and words[0] in NEGATIONS
    if len(words) != 1 + negated:
        return None
    if words[-1] in HARMFUL_NAMES:
        return "safe" if negated else "harmful"
    if words[-1] in SAFE_NAMES:
        return "harmful" if negated else "safe"
    return None
