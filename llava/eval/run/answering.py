"""Answering and guarding questions: the models of one process, and what is done when a batch is too much for them."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llava.data.schema import GuardFailure, GuardResult, Question, Record
from llava.errors import FailedRunError, InputError
from llava.eval.run.planning import derive_seed, split_batch
from llava.eval.run.settings import GenerationSettings
from llava.model.answering.client import ChatClient
from llava.model.answering.endpoint import EndpointModel
from llava.model.answering.replies import LONGEST_WORDS, Answer

if TYPE_CHECKING:
    from llava.model.answering.generation import MultimodalModel
    from llava.protector.protector import Protector
    from llava.protector.states.cascade import StateProtector

DEVICE_ERRORS = {"OutOfMemoryError", "AcceleratorError", "RuntimeError", "MemoryError"}
"""What torch raises when a device has no memory left or fails; anything else is the text's own fault."""


class Answerer:
    """Answers a run's questions with its model, and guards the answers with its protector."""

    def __init__(self, settings: GenerationSettings, device: str | None):
        """Load the model, and the protector where the run has one.

        Args:
            settings: Settings of the run.
            device: Device of this process.

        Raises:
            InputError: When one of them cannot be loaded.
        """
        self.settings = settings
        self.model: MultimodalModel | EndpointModel = load_model(settings, device)
        self.on_texts: Protector | None = load_protector(settings, device, self.model)
        self.on_states: StateProtector | None = load_on_states(settings, self.model, self.on_texts)

    @property
    def protector(self) -> Protector | StateProtector | None:
        """What guards the answers: by the model's states first where the run has a head, else by their texts."""
        return self.on_states or self.on_texts

    def ask(self, question: Question, ended: threading.Event) -> Answer:
        """Ask the endpoint one question."""
        from llava.data.images import open_image

        assert isinstance(self.model, EndpointModel)
        settings = self.settings
        return self.model.answer(
            question.prompt,
            open_image(question.image) if question.image else None,
            max_new_tokens=settings.max_new_tokens,
            temperature=settings.temperature,
            seed=derive_seed(settings.seed, question.key) if settings.temperature > 0 else None,
            ended=ended,
        )

    def describe_server(self) -> list[str]:
        """Return what the answers have shown about the endpoint, one sentence each; nothing without one."""
        return list(self.model.client.notes) if isinstance(self.model, EndpointModel) else []

    def answer(self, questions: Sequence[Question], responses: Sequence[str] | None = None) -> list[Record]:
        """Answer and guard a batch, in halves if need be.

        A batch that does not fit into memory is cut, always at the same place. So is one in which the protector failed:
        it withholds all its rows then, and the halves find the row that is to blame.

        Args:
            questions: What to answer.
            responses: Answers that are there already, which are only guarded.

        Raises:
            InputError: When a single question does not fit into memory.
            FailedRunError: When the device of the protector fails at a single row. A record that says withheld would
                be final, and another launch could do better.
        """
        from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

        try:
            records = self.answer_whole(questions, responses)
            failures = [record.guard.failure for record in records if record.guard and record.guard.failure]
            if not failures:
                return records
            if len(questions) == 1:
                check_device(questions[0], failures[0])
                return records
        except Exception as error:
            if not should_reduce_batch_size(error):
                raise
            if len(questions) == 1:
                raise InputError(
                    f"question {'/'.join(questions[0].key)} alone does not fit into memory; "
                    "try --load-in-4bit, a smaller --max-new-tokens or a larger device"
                ) from None
        clear_device_cache(garbage_collection=True)
        return [
            record
            for half in split_batch(range(len(questions)))
            for record in self.answer(
                [questions[place] for place in half], responses and [responses[place] for place in half]
            )
        ]

    def answer_whole(self, questions: Sequence[Question], responses: Sequence[str] | None = None) -> list[Record]:
        """Answer and guard questions as one batch."""
        seconds: dict[str, float] = {}
        scores = [math.nan] * len(questions)
        if responses is None:
            start = time.perf_counter()
            responses, scores = self.generate(questions)
            seconds["generate"] = (time.perf_counter() - start) / len(questions)
        guarded: Sequence[GuardResult | None] = [None] * len(questions)
        if self.protector:
            start = time.perf_counter()
            prompts = [question.prompt for question in questions]
            # A device that holds the model's rows holds as many of the detoxifier's.
            options: dict[str, Any] = {"batch_size": len(questions), "explain": True}
            if self.on_states is not None:
                guarded = self.on_states.guard(prompts, responses, scores, self.settings.max_new_tokens, **options)
            elif self.on_texts is not None:
                guarded = self.on_texts.guard(prompts, responses, self.settings.max_new_tokens, **options)
            seconds["guard"] = (time.perf_counter() - start) / len(questions)
        rows = zip(questions, responses, guarded, strict=True)
        return [Record(question, response, guard, dict(seconds)) for question, response, guard in rows]

    def generate(self, questions: Sequence[Question]) -> tuple[list[str], list[float]]:
        """Answer questions as one batch; return the answers, and the scores of the run's head (NaN without one)."""
        from llava.data.images import open_image

        settings = self.settings
        seeds = [derive_seed(settings.seed, question.key) for question in questions]
        prompts = [question.prompt for question in questions]
        images = [open_image(question.image) if question.image else None for question in questions]
        options: dict[str, Any] = {
            "max_new_tokens": settings.max_new_tokens,
            "temperature": settings.temperature,
            "seeds": seeds if settings.temperature > 0 else None,
        }
        if self.on_states is None or isinstance(self.model, EndpointModel):
            return self.model.generate(prompts, images, **options), [math.nan] * len(prompts)
        return self.on_states.answer(self.model, prompts, images, **options)


def load_model(settings: GenerationSettings, device: str | None) -> MultimodalModel | EndpointModel:
    """Load the model of a run, or connect to the server that runs it."""
    if settings.endpoint is not None:
        client = ChatClient(settings.endpoint, settings.model, timeout=settings.request_timeout)
        return EndpointModel(client, settings.concurrency)
    from llava.model.loading import load_mllm

    return load_mllm(settings.model, settings, device=device)


def load_protector(
    settings: GenerationSettings, device: str | None, model: MultimodalModel | EndpointModel
) -> Protector | None:
    """Load the detector of a run, and the detoxifier where it has one; None for a run without a guard.

    Args:
        settings: Settings of the run.
        device: Device of this process.
        model: The model, whose language model both may share.
    """
    if settings.detector is None:
        return None
    from llava.model.backbone import offer_backbone
    from llava.protector.detoxifier import Detoxifier
    from llava.protector.guard import build_guard
    from llava.protector.protector import Protector

    backbone = offer_backbone(model, settings.share_backbone)
    guard = build_guard(settings.detector, settings.part_options("detector", device), backbone=backbone)
    writer = None
    if settings.detoxifier is not None:
        options = settings.part_options("detoxifier", device)
        writer = Detoxifier.from_pretrained(settings.detoxifier, options, backbone=backbone)
    return Protector(guard, writer, settings.threshold, trim=settings.trim is not False)


def load_on_states(
    settings: GenerationSettings, model: MultimodalModel | EndpointModel, protector: Protector | None
) -> StateProtector | None:
    """Load the head of a run and join it with its protector, where there is one; None for a run without a head."""
    if settings.state_head is None:
        return None
    from llava.protector.states.cascade import load_state_protector

    return load_state_protector(settings.state_head, model, protector, settings.threshold)


def check_device(question: Question, failure: GuardFailure) -> None:
    """Raise when it was the device, and not the text, at which the protector failed.

    Args:
        question: The question whose response it was.
        failure: What failed.

    Raises:
        FailedRunError: Naming the question.
    """
    if failure.error in DEVICE_ERRORS:
        raise FailedRunError(
            f"could not guard question {'/'.join(question.key)} ({failure.part} failed: {failure.error}); free memory "
            "on the device, or give another --device"
        )


def describe_missing(asked: Sequence[tuple[Question, Answer]]) -> list[str]:
    """Return what a reader must know about questions without a response, one sentence for each reason."""
    notes = []
    refused = [(question, answer.refusal) for question, answer in asked if answer.refusal]
    if refused:
        question, words = refused[0]
        name, words = "/".join(question.key), " ".join(words.split())[:LONGEST_WORDS]
        notes.append(f"{len(refused)} questions were turned down and have an empty response, first {name} ({words})")
    for reason in dict.fromkeys(answer.unanswered for _, answer in asked if answer.unanswered):
        names = ["/".join(question.key) for question, answer in asked if answer.unanswered == reason]
        notes.append(f"{len(names)} answers were {reason} (first {names[0]}); they are unscored")
    return notes
