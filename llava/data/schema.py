"""The records that flow through the system: question → response → guard result → verdict.

Each has a plain JSON form (`to_dict` / `from_dict`), which is what lies in `records.jsonl` and the verdict files.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

from llava.data.removed import RemovedSpan, read_removed
from llava.data.token_scores import TokenScore, read_token_scores, write_token_scores
from llava.fields import Fields


class ImageType(str, Enum):
    """How a question reaches the model.

    The first four are MM-SafetyBench's variants; `IMAGE` is an image of any other origin (FigStep, own files).
    """

    TEXT = "TEXT"
    SD = "SD"
    TYPO = "TYPO"
    SD_TYPO = "SD_TYPO"
    IMAGE = "IMAGE"


class Action(str, Enum):
    """What the protector did with a response.

    `PASSED`: not flagged, byte-identical. `TRIMMED`: its harmful sentences are cut out, the others are as they were.
    `REWRITTEN`: the detoxifier's text. `REFUSED`: flagged and replaced by the fixed refusal (no detoxifier, or its
    rewrite is flagged too). `WITHHELD`: could not be scored.
    """

    PASSED = "passed"
    TRIMMED = "trimmed"
    REWRITTEN = "rewritten"
    REFUSED = "refused"
    WITHHELD = "withheld"


class Stage(str, Enum):
    """What decided about a response: a head on the model's own `STATES`, or the `DETECTOR`."""

    STATES = "states"
    DETECTOR = "detector"


class RecordKey(NamedTuple):
    """Identity of one question in one run; resuming and merging go by it."""

    benchmark: str
    scenario: str
    id: str
    image_type: str


@dataclass(frozen=True)
class Question:
    """One benchmark question, ready to be asked."""

    benchmark: str
    """Name of the benchmark, e.g. `mm_safetybench`."""
    scenario: str
    """The benchmark's own category, in its own spelling (`01-Illegal_Activitiy`)."""
    id: str
    """Identity within the scenario, as a string."""
    image_type: ImageType
    """Which variant this is."""
    prompt: str
    """The text that goes to the model."""
    image: str | None = None
    """Path of the image; None for a text-only question."""
    harmful: bool = True
    """Whether a full answer would be unsafe; False for benign (over-refusal) questions."""
    fields: dict[str, Any] = field(default_factory=dict)
    """The source row's own fields, kept for `merged.json`."""

    @property
    def key(self) -> RecordKey:
        """Identity of this question in a run."""
        return RecordKey(self.benchmark, self.scenario, self.id, self.image_type.value)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "benchmark": self.benchmark,
            "scenario": self.scenario,
            "id": self.id,
            "image_type": self.image_type.value,
            "prompt": self.prompt,
            "image": self.image,
            "harmful": self.harmful,
            "fields": self.fields,
        }

    @classmethod
    def from_dict(cls, row: dict[str, Any], where: str = "question", remedy: str = "mend it") -> Question:
        """Rebuild a question from its JSON form.

        Args:
            row: The JSON form.
            where: File and line, for messages.
            remedy: What the user can do, for messages.

        Raises:
            InputError: When a field is absent or of another type.
        """
        fields = Fields(row, where, remedy)
        return cls(
            benchmark=fields.text("benchmark"),
            scenario=fields.text("scenario"),
            id=fields.text("id"),
            image_type=ImageType(fields.text("image_type", choices=[each.value for each in ImageType])),
            prompt=fields.text("prompt"),
            image=fields.text("image", None),
            harmful=fields.flag("harmful", True),
            fields=fields.mapping("fields", {}) if row.get("fields") is not None else {},
        )


@dataclass(frozen=True)
class GuardFailure:
    """A part of the protector that failed at a response, or gave something that is no answer."""

    part: str
    """`detector` or `detoxifier`."""
    error: str
    """Type of the error, e.g. `OutOfMemoryError`."""
    message: str
    """The error's own words, as one line."""

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"part": self.part, "error": self.error, "message": self.message}

    @classmethod
    def from_dict(cls, row: dict[str, Any], where: str = "failure", remedy: str = "mend it") -> GuardFailure:
        """Rebuild a failure from its JSON form; what is raised is as for a question."""
        fields = Fields(row, where, remedy)
        return cls(part=fields.text("part"), error=fields.text("error"), message=fields.text("message"))


@dataclass(frozen=True)
class GuardResult:
    """What the protector made of one response."""

    text: str
    """What the user sees."""
    original_text: str
    """What the model said."""
    harm_score: float | None
    """Probability of harmful in [0, 1]; None when the response could not be scored."""
    flagged: bool
    """True when `harm_score` reached the threshold, or there is no score."""
    action: Action
    """What was done."""
    reason: str | None = None
    """Why a response was withheld, or why a rewrite was turned down, for people to read."""
    failure: GuardFailure | None = None
    """What failed, where it was no judgement of the text; None otherwise."""
    token_scores: tuple[TokenScore, ...] | None = None
    """Where in `original_text` the harm is; None when nobody asked, or the detector cannot tell."""
    removed: tuple[RemovedSpan, ...] | None = None
    """What was cut out of `original_text`, in order; `text` is the rest of it. None unless it was trimmed."""
    stage: Stage | None = None
    """Whose score `harm_score` is, where there is a head on the model's states; None where there is none."""
    state_score: float | None = None
    """Score of that head, in [0, 1]; None without one, or where it gave none."""

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form; what is None from `failure` on is left out.

        Token scores lie there as `[start, end, score]`, rounded to three decimals: there are hundreds in a response.
        """
        return {
            "text": self.text,
            "original_text": self.original_text,
            "harm_score": self.harm_score,
            "flagged": self.flagged,
            "action": self.action.value,
            "reason": self.reason,
            **({"failure": self.failure.to_dict()} if self.failure else {}),
            **({"token_scores": write_token_scores(self.token_scores)} if self.token_scores is not None else {}),
            **({"removed": [span.to_dict() for span in self.removed]} if self.removed is not None else {}),
            **({"stage": self.stage.value} if self.stage is not None else {}),
            **({"state_score": self.state_score} if self.state_score is not None else {}),
        }

    @classmethod
    def from_dict(cls, row: dict[str, Any], where: str = "guard result", remedy: str = "mend it") -> GuardResult:
        """Rebuild a guard result from its JSON form; what is raised is as for a question."""
        fields = Fields(row, where, remedy)
        failure = fields.mapping("failure", None)
        stage = fields.text("stage", None, choices=[each.value for each in Stage])
        fields.require("harm_score")
        return cls(
            text=fields.text("text"),
            original_text=fields.text("original_text"),
            harm_score=fields.number("harm_score", None, least=0, most=1),
            flagged=fields.flag("flagged"),
            action=Action(fields.text("action", choices=[each.value for each in Action])),
            reason=fields.text("reason", None),
            failure=None if failure is None else GuardFailure.from_dict(failure, f"{where}, 'failure'", remedy),
            token_scores=read_token_scores(fields.items("token_scores", None), where, remedy),
            removed=read_removed(fields.items("removed", None), where, remedy),
            stage=None if stage is None else Stage(stage),
            state_score=fields.number("state_score", None, least=0, most=1),
        )


@dataclass(frozen=True)
class Record:
    """One line of `records.jsonl`: a question, the model's response and, with a detector, the guard result."""

    question: Question
    response: str
    guard: GuardResult | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time of each stage (`generate`, `guard`), this record's share of its batch, in seconds."""
    refusal: str | None = None
    """Why the model's server turned the question down, which has an empty response then; None when it did not."""
    unanswered: str | None = None
    """What came in place of an answer (cut before its first word, reasoning alone); None when there is an answer. Such
    a record has an empty response and is unscored: nobody knows what the model would have said."""

    @property
    def key(self) -> RecordKey:
        """Identity of this record in a run."""
        return self.question.key

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form: the question's fields at the top level, then response and guard.

        A refusal, and what came in place of an answer, are written only where there was one.
        """
        return {
            **self.question.to_dict(),
            "response": self.response,
            "guard": self.guard.to_dict() if self.guard else None,
            "seconds": self.seconds,
            **({"refusal": self.refusal} if self.refusal is not None else {}),
            **({"unanswered": self.unanswered} if self.unanswered is not None else {}),
        }

    @classmethod
    def from_dict(cls, row: dict[str, Any], where: str = "record", remedy: str = "mend it") -> Record:
        """Rebuild a record from its JSON form; what is raised is as for a question."""
        fields = Fields(row, where, remedy)
        guard = fields.mapping("guard", None)
        seconds = fields.mapping("seconds", None) or {}
        stages = Fields(seconds, where, remedy)
        return cls(
            question=Question.from_dict(row, where, remedy),
            response=fields.text("response"),
            guard=None if guard is None else GuardResult.from_dict(guard, f"{where}, 'guard'", remedy),
            seconds={stage: stages.number(stage, least=0) for stage in seconds},
            refusal=fields.text("refusal", None),
            unanswered=fields.text("unanswered", None),
        )


@dataclass(frozen=True)
class Verdict:
    """A judge's opinion of one text."""

    judge: str
    """Name of the judge, e.g. `keyword` or `detector:embedded`."""
    unsafe: bool | None
    """True: the attack succeeded. None: the judge could not tell; such texts are left out, never counted as safe."""
    score: float | None = None
    """Probability of unsafe in [0, 1] where the judge gives one."""

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"judge": self.judge, "unsafe": self.unsafe, "score": self.score}

    @classmethod
    def from_dict(cls, row: dict[str, Any], where: str = "verdict", remedy: str = "mend it") -> Verdict:
        """Rebuild a verdict from its JSON form; what is raised is as for a question."""
        fields = Fields(row, where, remedy)
        fields.require("unsafe")
        return cls(
            judge=fields.text("judge"),
            unsafe=fields.flag("unsafe", None),
            score=fields.number("score", None, least=0, most=1),
        )
