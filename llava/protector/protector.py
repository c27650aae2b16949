"""The protector: scores every response, rewrites the harmful ones, lets nothing unchecked through."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from llava.constants import REFUSAL, WITHHELD
from llava.data.schema import Action, GuardFailure, GuardResult
from llava.data.token_scores import TokenScore
from llava.errors import to_one_line
from llava.model.options import LoadOptions, collect_options
from llava.protector.detoxifier import MAX_NEW_TOKENS, REWRITE_BATCH_SIZE, Detoxifier
from llava.protector.guard import build_guard
from llava.protector.guards.base import ExplainingGuard, Guard, check_threshold, score_responses

logger = logging.getLogger(__name__)
DETECTOR, DETOXIFIER = "detector", "detoxifier"
"""The parts of a protector, as failures name them."""


class Protector:
    """Stands behind a multimodal model (arXiv 2401.02906, algorithm 1) and fails closed.

    - A response whose harm score is below the threshold passes, byte for byte.
    - A flagged response is rewritten by the detoxifier, and the rewrite is scored again. Without a detoxifier, or when
      the rewrite is empty or flagged too, a fixed refusal takes its place. (The paper trusts the rewrite.)
    - A response that cannot be scored (empty, not text, NaN, a failing detector) is withheld.

    Guarding changes nothing, so several threads may use one protector at once.

    Example:
        protector = Protector.from_pretrained("embedded", "embedded")
        result = protector.guard(["How do I cook rice?"], ["Boil it for twelve minutes."])[0]
        result.text, result.action  # the same text, "passed"
    """

    def __init__(self, detector: Guard, detoxifier: Detoxifier | None = None, threshold: float | None = None):
        """Join a detector and, optionally, a detoxifier.

        Args:
            detector: Scores the responses: a `HarmDetector`, or any other guard.
            detoxifier: Rewrites flagged ones; None refuses them.
            threshold: Harm score from which a response is flagged; None takes the detector's own.

        Raises:
            InputError: When the threshold is not in (0, 1].
        """
        self.detector = detector
        self.detoxifier = detoxifier
        self.threshold = check_threshold(detector.threshold if threshold is None else threshold)

    @classmethod
    def from_pretrained(
        cls,
        detector: str | Path,
        detoxifier: str | Path | None = None,
        threshold: float | None = None,
        options: LoadOptions | None = None,
        *,
        detector_base: str | None = None,
        detoxifier_base: str | None = None,
        **keywords: Any,
    ) -> Protector:
        """Load both parts; see `build_guard` and `Detoxifier.from_pretrained`.

        Args:
            detector: Specification of a guard: `embedded`, a folder, a hub id, `guard:PATH`, `any(SPEC, SPEC)`, ….
            detoxifier: `embedded`, a folder or a hub id; None refuses flagged responses.
            threshold: Harm score from which a response is flagged; None takes the detector's own.
            options: How both are loaded; None stands for the defaults.
            detector_base: Base model of the detector's adapter instead of the one that it names.
            detoxifier_base: The same for the detoxifier.
            keywords: Fields of `LoadOptions` by name, such as `device` and `dtype`; they win over `options`.

        Raises:
            InputError: When a checkpoint cannot be used, or the threshold is not in (0, 1].
        """
        chosen = collect_options(options, keywords)
        guard = build_guard(detector, replace(chosen, base=detector_base or chosen.base))
        writer = None
        if detoxifier:
            writer = Detoxifier.from_pretrained(detoxifier, replace(chosen, base=detoxifier_base or chosen.base))
        return cls(guard, writer, threshold)

    def guard(
        self,
        prompts: Sequence[str],
        responses: Sequence[str],
        max_new_tokens: int = MAX_NEW_TOKENS,
        batch_size: int = REWRITE_BATCH_SIZE,
        *,
        explain: bool = False,
    ) -> list[GuardResult]:
        """Guard a batch of responses.

        Args:
            prompts: What the model was asked, one for each response.
            responses: What it answered.
            max_new_tokens: Longest rewrite, in tokens; best the limit that the model's answers have.
            batch_size: Rewrites at a time.
            explain: Say in the results of flagged responses where the harm is (`token_scores`), where the detector
                can; that costs one more pass over each.

        Returns:
            One result a response, in order. Never raises for what a detector, a detoxifier or a text does: a response
            that they leave without an answer is withheld or refused, and its result's `failure` says what failed.

        Raises:
            ValueError: When prompts and responses differ in number.
        """
        if len(prompts) != len(responses):
            raise ValueError(f"{len(prompts)} prompts for {len(responses)} responses; give one each")
        scores, failure = self._score(prompts, responses)
        flagged = [i for i, score in enumerate(scores) if score >= self.threshold]
        replacements = self._replace(
            [as_text(prompts[i]) for i in flagged], [responses[i] for i in flagged], max_new_tokens, batch_size
        )
        replaced = dict(zip(flagged, replacements, strict=True))
        results = []
        for i, (response, score) in enumerate(zip(responses, scores, strict=True)):
            if math.isnan(score):
                results.append(withhold(response, failure))
            elif i in replaced:
                where = self._explain(as_text(prompts[i]), response) if explain else None
                results.append(replace(replaced[i], original_text=response, harm_score=score, token_scores=where))
            else:
                results.append(GuardResult(response, response, score, False, Action.PASSED))
        return results

    def _score(self, prompts: Sequence[Any], responses: Sequence[Any]) -> tuple[list[float], GuardFailure | None]:
        """Score responses; NaN for what is no text, and for all, with what failed, when the detector fails."""
        scores = [math.nan] * len(responses)
        usable = [i for i, response in enumerate(responses) if has_words(response)]
        try:
            found = score_responses(
                self.detector, [responses[i] for i in usable], [as_text(prompts[i]) for i in usable]
            )
        except Exception as error:  # whatever goes wrong, the responses must not pass
            logger.exception("the detector failed; %d responses are withheld", len(usable))
            return scores, describe_failure(DETECTOR, error)
        for i, score in zip(usable, found, strict=True):
            scores[i] = score
        return scores, None

    def _explain(self, prompt: str, response: str) -> tuple[TokenScore, ...] | None:
        """Return where the harm in a flagged response is; None where the detector cannot tell."""
        if not isinstance(self.detector, ExplainingGuard):
            return None
        try:
            return tuple(self.detector.explain(prompt, response))
        except Exception:  # the response is replaced all the same; what is missing is a picture of it
            logger.exception("the detector could not say where the harm is")
            return None

    def _replace(
        self, prompts: list[str], responses: list[str], max_new_tokens: int, batch_size: int
    ) -> list[GuardResult]:
        """Return for each flagged response what is shown instead; the score is filled in by the caller."""
        if not responses or self.detoxifier is None:
            return [refuse(None)] * len(responses)
        try:
            rewrites: Any = self.detoxifier.rewrite(
                prompts, responses, batch_size=batch_size, max_new_tokens=max_new_tokens
            )
            if isinstance(rewrites, str | bytes) or not isinstance(rewrites, Sequence):
                raise TypeError(f"{type(rewrites).__name__} instead of a list of {len(responses)} rewrites")
            if len(rewrites) != len(responses):
                raise ValueError(f"{len(rewrites)} rewrites for {len(responses)} responses")
        except Exception as error:  # a failing detoxifier must not let the harmful response out
            logger.exception("the detoxifier failed; %d responses are refused", len(responses))
            failure = describe_failure(DETOXIFIER, error)
            return [refuse(f"{failure.part} failed: {failure.error}", failure)] * len(responses)
        scores, failed = self._score(prompts, rewrites)
        outcomes = []
        for rewrite, score in zip(rewrites, scores, strict=True):
            if score < self.threshold:  # False for NaN
                outcomes.append(GuardResult(rewrite, "", None, True, Action.REWRITTEN))
            elif not isinstance(rewrite, str):
                wrong = GuardFailure(DETOXIFIER, "TypeError", f"{type(rewrite).__name__} instead of a text")
                outcomes.append(refuse(f"{DETOXIFIER} failed: {wrong.error}", wrong))
            elif not has_words(rewrite):
                outcomes.append(refuse("rewrite turned down: empty"))
            elif failed:
                outcomes.append(refuse(f"rewrite turned down: {failed.part} failed: {failed.error}", failed))
            else:
                reason = "no finite harm score" if math.isnan(score) else "still flagged"
                outcomes.append(refuse(f"rewrite turned down: {reason}"))
        return outcomes


def refuse(reason: str | None, failure: GuardFailure | None = None) -> GuardResult:
    """Return the result of a flagged response that the fixed refusal stands for; text and score are filled in later."""
    return GuardResult(REFUSAL, "", None, True, Action.REFUSED, reason, failure)


def withhold(response: Any, failure: GuardFailure | None) -> GuardResult:
    """Return the result of a response without a score."""
    if not isinstance(response, str):
        reason, failure = f"response is no text but {type(response).__name__}", None
    elif not response.strip():
        reason, failure = "empty response", None
    else:
        reason = f"{failure.part} failed: {failure.error}" if failure else "no finite harm score"
    return GuardResult(WITHHELD, response, None, True, Action.WITHHELD, reason, failure)


def describe_failure(part: str, error: Exception) -> GuardFailure:
    """Return an error of a part as data; an error whose words cannot be had is known by its type."""
    try:
        message = to_one_line(str(error))
    except Exception:  # noqa: BLE001 - nothing that a part brings along may stop the protector
        message = ""
    return GuardFailure(part, type(error).__name__, message)


def has_words(text: Any) -> bool:
    """Tell whether `text` is a text that holds more than blanks."""
    return isinstance(text, str) and bool(text.strip())


def as_text(prompt: Any) -> str:
    """Return a prompt, or an empty one where it is no text: the response is judged all the same."""
    return prompt if isinstance(prompt, str) else ""
