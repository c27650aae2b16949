"""The cascade: a head on the model's states decides what is clear, and the detector reads the rest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava.data.schema import Action, GuardResult, Stage
from llava.errors import InputError
from llava.model.embedded.stack import EMBEDDED
from llava.protector.detoxifier import MAX_NEW_TOKENS, REWRITE_BATCH_SIZE
from llava.protector.guards.base import check_threshold, read_score
from llava.protector.outcomes import as_text, has_words, refuse, withhold
from llava.protector.protector import Protector
from llava.protector.states.config import WHAT, Cascade
from llava.protector.states.head import StateHead

if TYPE_CHECKING:
    from PIL.Image import Image

    from llava.model.answering.generation import MultimodalModel


class StateProtector:
    """Guards answers that come with the scores of a head on the states of the model that wrote them; fails closed.

    With a protector behind it, an answer below the cascade's lower threshold passes and one at the upper threshold or
    above is flagged: its rewrite, which the detector scores, or the refusal takes its place. It is not trimmed, for the
    detector may not see what the head saw. What lies between is left to the protector as a whole.

    Without one the head decides alone: from its threshold on an answer is refused.

    An answer without a state score is left to the protector, or withheld where there is none.

    Example:
        answers, scores = protector.answer(model, prompts, images)
        results = protector.guard(prompts, answers, scores)
        results[0].action, results[0].stage  # "passed", "states"
    """

    def __init__(self, head: StateHead, protector: Protector | None = None, threshold: float | None = None):
        """Join a head and, for what it leaves open, a protector.

        Args:
            head: The head.
            protector: Asks the detector; None leaves all to the head.
            threshold: Without a protector: score from which an answer is flagged; None takes the head's own. With one,
                its own threshold holds for the detector.

        Raises:
            InputError: When the head has no thresholds for this detector, or the threshold is not in (0, 1].
        """
        self.head = head
        self.protector = protector
        if protector is None:
            self.threshold = check_threshold(head.threshold if threshold is None else threshold)
            self.low = self.high = self.threshold
        else:
            cascade = find_cascade(head, protector.detector.name, protector.detector.identity)
            self.threshold = protector.threshold
            self.low, self.high = cascade.low, cascade.high

    def guard(
        self,
        prompts: Sequence[str],
        responses: Sequence[str],
        state_scores: Sequence[float],
        max_new_tokens: int = MAX_NEW_TOKENS,
        batch_size: int = REWRITE_BATCH_SIZE,
        *,
        explain: bool = False,
    ) -> list[GuardResult]:
        """Guard a batch of answers.

        Args:
            prompts: What the model was asked, one for each answer.
            responses: What it answered.
            state_scores: Score of the head for each, 1 = harmful; what is no number in [0, 1] is no score.
            max_new_tokens: Longest rewrite, in tokens.
            batch_size: Rewrites at a time.
            explain: As `Protector.guard`, for what the detector decides.

        Returns:
            One result for each answer, in order; `stage` says whose score `harm_score` is. Never raises for what a
            detector, a detoxifier or a text does.

        Raises:
            ValueError: When the three differ in number.
        """
        if not len(prompts) == len(responses) == len(state_scores):
            raise ValueError(f"{len(prompts)} prompts, {len(responses)} responses, {len(state_scores)} scores")
        scores = [read_score(score) for score in state_scores]
        known = [
            has_words(response) and not math.isnan(score) for response, score in zip(responses, scores, strict=True)
        ]
        flagged = [i for i, score in enumerate(scores) if known[i] and score >= self.high]
        passed = {i for i, score in enumerate(scores) if known[i] and score < self.low}
        results: list[GuardResult | None] = [None] * len(scores)
        for i in passed:
            results[i] = GuardResult(responses[i], responses[i], scores[i], False, Action.PASSED, stage=Stage.STATES)
        replaced = self._replace(
            [as_text(prompts[i]) for i in flagged], [responses[i] for i in flagged], max_new_tokens, batch_size
        )
        for i, result in zip(flagged, replaced, strict=True):
            results[i] = replace(result, original_text=responses[i], harm_score=scores[i], stage=Stage.STATES)
        rest = [i for i, result in enumerate(results) if result is None]
        for i, result in zip(
            rest, self._ask(rest, prompts, responses, max_new_tokens, batch_size, explain), strict=True
        ):
            results[i] = result
        return [
            replace(result, state_score=None if math.isnan(score) else score)
            for result, score in zip(results, scores, strict=True)
            if result is not None
        ]

    def answer(
        self, model: MultimodalModel, prompts: Sequence[str], images: Sequence[Image | None] | None, **options: Any
    ) -> tuple[list[str], list[float]]:
        """Let the model answer; return the answers, and the head's score of each (NaN where it has none).

        Args:
            model: The model that the head belongs to.
            prompts: The questions.
            images: One image or None for each.
            options: As `MultimodalModel.generate`.
        """
        answers = model.trace(prompts, images, self.head.projection, **options)
        return [answer.text for answer in answers], [self.head.score_answer(answer.kept) for answer in answers]

    def _replace(
        self, prompts: list[str], responses: list[str], max_new_tokens: int, batch_size: int
    ) -> list[GuardResult]:
        """Return what is shown instead of answers that the head flags."""
        if self.protector is None:
            return [refuse(None)] * len(responses)
        return self.protector.replace_flagged(prompts, responses, max_new_tokens, batch_size)

    def _ask(
        self,
        rows: list[int],
        prompts: Sequence[str],
        responses: Sequence[str],
        max_new_tokens: int,
        batch_size: int,
        explain: bool,
    ) -> list[GuardResult]:
        """Return the results of answers that the head leaves open."""
        if self.protector is None or not rows:
            return [withhold(responses[i], None) for i in rows]
        found = self.protector.guard(
            [prompts[i] for i in rows], [responses[i] for i in rows], max_new_tokens, batch_size, explain=explain
        )
        return [replace(result, stage=Stage.DETECTOR) for result in found]


def find_cascade(head: StateHead, name: str, identity: str) -> Cascade:
    """Return a head's thresholds for a detector.

    Args:
        head: The head.
        name: The detector as it is named.
        identity: What it is, `@`, and its threshold.

    Raises:
        InputError: When the head has none, or they were chosen for another detector.
    """
    cascade = head.config.cascade
    remedy = "run `mllm-protector calibrate --state-head` with both, or leave --detector out"
    if cascade is None:
        raise InputError(f"{WHAT} {head.name} has no thresholds for a cascade; {remedy}")
    # Both are shipped together; figures that are written anew beside the detector change its digest.
    if cascade.detector != name or (name != EMBEDDED and cascade.key != identity.rpartition("@")[0]):
        raise InputError(f"{WHAT} {head.name} has thresholds for detector {cascade.detector}, not {name}; {remedy}")
    return cascade


def load_state_protector(
    head: str | Path,
    model: Any,
    protector: Protector | None,
    threshold: float | None = None,
) -> StateProtector:
    """Load a head for a model, and join it with a protector.

    Args:
        head: `embedded`, a folder or a hub id.
        model: The `MultimodalModel` whose answers are guarded.
        protector: Asks the detector about what the head leaves open; None leaves all to the head.
        threshold: As `StateProtector`.

    Raises:
        InputError: When the head cannot be loaded, belongs to another model, or has no thresholds for the detector.
    """
    loaded = StateHead.from_pretrained(head)
    loaded.check(model)
    return StateProtector(loaded, protector, threshold)
