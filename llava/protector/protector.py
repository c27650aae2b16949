"""The protector: scores every response, rewrites the harmful ones, lets nothing unchecked through."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llava.constants import REFUSAL, WITHHELD
from llava.data.schema import Action, GuardResult
from llava.errors import InputError
from llava.protector.detector import HarmDetector
from llava.protector.detoxifier import MAX_NEW_TOKENS, REWRITE_BATCH_SIZE, Detoxifier

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)


class Protector:
    """Stands behind a multimodal model (arXiv 2401.02906, algorithm 1) and fails closed.

    - A response whose harm score is below the threshold passes, byte for byte.
    - A flagged response is rewritten by the detoxifier, and the rewrite is scored again. Without a detoxifier, or when
      the rewrite is empty or flagged too, a fixed refusal takes its place. (The paper trusts the rewrite.)
    - A response that cannot be scored (empty, not text, NaN, a failing detector) is withheld.

    Example:
        protector = Protector.from_pretrained("embedded", "embedded")
        result = protector.guard(["How do I cook rice?"], ["Boil it for twelve minutes."])[0]
        result.text, result.action  # the same text, "passed"
    """

    def __init__(self, detector: HarmDetector, detoxifier: Detoxifier | None = None, threshold: float | None = None):
        """Join a detector and, optionally, a detoxifier.

        Args:
            detector: Scores the responses.
            detoxifier: Rewrites flagged ones; None refuses them.
            threshold: Harm score from which a response is flagged; None takes the detector's own.

        Raises:
            InputError: When the threshold is not in (0, 1].
        """
        self.detector = detector
        self.detoxifier = detoxifier
        self.threshold = detector.threshold if threshold is None else threshold
        if not 0.0 < self.threshold <= 1.0:
            raise InputError(f"threshold is {self.threshold}; it must be above 0 and at most 1")

    @classmethod
    def from_pretrained(
        cls,
        detector: str | Path,
        detoxifier: str | Path | None = None,
        threshold: float | None = None,
        *,
        device: str | torch.device | None = None,
        dtype: str = "auto",
    ) -> Protector:
        """Load both parts; see `HarmDetector.from_pretrained` and `Detoxifier.from_pretrained`.

        Raises:
            InputError: When a checkpoint cannot be used, or the threshold is not in (0, 1].
        """
        return cls(
            HarmDetector.from_pretrained(detector, device=device, dtype=dtype),
            Detoxifier.from_pretrained(detoxifier, device=device, dtype=dtype) if detoxifier else None,
            threshold,
        )

    def guard(
        self,
        prompts: Sequence[str],
        responses: Sequence[str],
        max_new_tokens: int = MAX_NEW_TOKENS,
        batch_size: int = REWRITE_BATCH_SIZE,
    ) -> list[GuardResult]:
        """Guard a batch of responses.

        Args:
            prompts: What the model was asked, one for each response.
            responses: What it answered.
            max_new_tokens: Longest rewrite, in tokens; best the limit that the model's answers have.
            batch_size: Rewrites at a time.

        Returns:
            One result a response, in order. Never raises for what a model or a text does: such responses are withheld.

        Raises:
            ValueError: When prompts and responses differ in number.
        """
        if len(prompts) != len(responses):
            raise ValueError(f"{len(prompts)} prompts for {len(responses)} responses; give one each")
        scores, failure = self._score(prompts, responses)
        flagged = [i for i, score in enumerate(scores) if math.isfinite(score) and score >= self.threshold]
        replacements = self._replace(
            [prompts[i] for i in flagged], [responses[i] for i in flagged], max_new_tokens, batch_size
        )
        replaced = dict(zip(flagged, replacements, strict=True))
        results = []
        for i, (response, score) in enumerate(zip(responses, scores, strict=True)):
            if not math.isfinite(score):
                reason = failure or ("empty response" if not str(response).strip() else "no finite harm score")
                results.append(GuardResult(WITHHELD, response, None, True, Action.WITHHELD, reason))
            elif i in replaced:
                text, action, note = replaced[i]
                results.append(GuardResult(text, response, score, True, action, note))
            else:
                results.append(GuardResult(response, response, score, False, Action.PASSED))
        return results

    def _score(self, prompts: Sequence[str], responses: Sequence[str]) -> tuple[list[float], str | None]:
        """Score responses; NaN for what is no text, and for all, with the reason, when the detector fails."""
        scores = [math.nan] * len(responses)
        usable = [i for i, response in enumerate(responses) if isinstance(response, str) and response.strip()]
        try:
            found = self.detector.score([responses[i] for i in usable], [str(prompts[i]) for i in usable])
        except Exception as error:  # whatever goes wrong, the responses must not pass
            logger.exception("the detector failed; %d responses are withheld", len(usable))
            return scores, f"detector failed: {type(error).__name__}"
        if len(found) != len(usable):
            return scores, f"detector failed: {len(found)} scores for {len(usable)} responses"
        for i, score in zip(usable, found, strict=True):
            scores[i] = score
        return scores, None

    def _replace(
        self, prompts: list[str], responses: list[str], max_new_tokens: int, batch_size: int
    ) -> list[tuple[str, Action, str | None]]:
        """Return for each flagged response what is shown instead, the action, and a note for a refused rewrite."""
        if not responses or self.detoxifier is None:
            return [(REFUSAL, Action.REFUSED, None)] * len(responses)
        try:
            rewrites = self.detoxifier.rewrite(prompts, responses, batch_size=batch_size, max_new_tokens=max_new_tokens)
        except Exception as error:  # a failing detoxifier must not let the harmful response out
            logger.exception("the detoxifier failed; %d responses are refused", len(responses))
            return [(REFUSAL, Action.REFUSED, f"detoxifier failed: {type(error).__name__}")] * len(responses)
        scores, failure = self._score(prompts, rewrites)
        outcomes: list[tuple[str, Action, str | None]] = []
        for rewrite, score in zip(rewrites, scores, strict=True):
            if score < self.threshold:  # False for NaN
                outcomes.append((rewrite, Action.REWRITTEN, None))
            else:
                reason = failure or ("empty" if not rewrite.strip() else "still flagged")
                outcomes.append((REFUSAL, Action.REFUSED, f"rewrite turned down: {reason}"))
        return outcomes
