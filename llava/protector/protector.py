"""The protector: scores every response, trims or rewrites the harmful ones, lets nothing unchecked through."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from llava.data.schema import Action, GuardFailure, GuardResult
from llava.data.token_scores import TokenScore
from llava.model.options import LoadOptions, collect_options, take_options
from llava.protector.detoxifier import MAX_NEW_TOKENS, REWRITE_BATCH_SIZE, Detoxifier
from llava.protector.guard import build_guard
from llava.protector.guards.base import ExplainingGuard, Guard, check_threshold, score_responses
from llava.protector.outcomes import DETECTOR, DETOXIFIER, as_text, describe_failure, has_words, refuse, withhold
from llava.protector.repair.rewriting import judge_rewrite, read_rewrites
from llava.protector.repair.trimming import Trim, trim_responses
from llava.protector.streaming.protected import LOOK_AHEAD, PATIENCE, STRIDE, ProtectedStream

logger = logging.getLogger(__name__)


class Protector:
    """Stands behind a multimodal model (arXiv 2401.02906, algorithm 1) and fails closed.

    - A response whose harm score is below the threshold passes, byte for byte.
    - Of a flagged response whose harm is local the harmful sentences are cut out, where the detector can say where they
      are; the rest is scored again. (The paper knows no such step.)
    - Any other is rewritten by the detoxifier, and the rewrite is scored again. Without a detoxifier, or when the
      rewrite is empty or flagged too, a fixed refusal takes its place. (The paper trusts the rewrite.)
    - A response that cannot be scored (empty, not text, NaN, a failing detector) is withheld.

    Guarding changes nothing, so several threads may use one protector at once.

    Example:
        protector = Protector.from_pretrained("embedded", "embedded")
        result = protector.guard(["How do I cook rice?"], ["Boil it for twelve minutes."])[0]
        result.text, result.action  # the same text, "passed"
    """

    def __init__(
        self,
        detector: Guard,
        detoxifier: Detoxifier | None = None,
        threshold: float | None = None,
        *,
        trim: bool = True,
    ):
        """Join a detector and, optionally, a detoxifier.

        Args:
            detector: Scores the responses: a `HarmDetector`, or any other guard.
            detoxifier: Rewrites flagged ones; None refuses them.
            threshold: Harm score from which a response is flagged; None takes the detector's own.
            trim: Whether harmful sentences are cut out before a rewrite; an `ExplainingGuard` can say which those are.

        Raises:
            InputError: When the threshold is not in (0, 1].
        """
        self.detector = detector
        self.detoxifier = detoxifier
        self.threshold = check_threshold(detector.threshold if threshold is None else threshold)
        self.trim = trim

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
        trim: bool = True,
        backbone: Any = None,
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
            trim: Whether harmful sentences are cut out before a response is rewritten as a whole.
            backbone: A model that `load_mllm` gave, whose language model is the base of both: they use its weights.
            keywords: Fields of `LoadOptions` by name, such as `device` and `dtype`; they win over `options`.

        Raises:
            InputError: When a checkpoint cannot be used, or the threshold is not in (0, 1].
        """
        from llava.model.backbone import as_backbone

        backbone = as_backbone(backbone)
        chosen = collect_options(options, keywords)
        guard = build_guard(detector, replace(chosen, base=detector_base or chosen.base), backbone=backbone)
        chosen, writer = replace(chosen, base=detoxifier_base or chosen.base), None
        if detoxifier:
            writer = Detoxifier.from_pretrained(detoxifier, chosen, backbone=backbone)
        return cls(guard, writer, threshold, trim=trim)

    @classmethod
    def from_options(cls, options: Mapping[str, Any], model: Any = None) -> Protector:
        """Load both parts as a command's options say; they are small, and run unquantised.

        Args:
            options: `detector`, `detoxifier` (None, empty or `none` refuses), `threshold`, `detector_base`,
                `detoxifier_base`, `share_backbone`, and the fields of `LoadOptions`, by name.
            model: The multimodal model that is guarded, where it is in this process; see `offer_backbone`.

        Raises:
            InputError: As `from_pretrained`.
        """
        from llava.model.backbone import offer_backbone

        return cls.from_pretrained(
            options["detector"],
            None if options["detoxifier"] in (None, "", "none") else options["detoxifier"],
            options["threshold"],
            replace(take_options(options), load_in_8bit=False, load_in_4bit=False),
            detector_base=options["detector_base"],
            detoxifier_base=options["detoxifier_base"],
            backbone=offer_backbone(model, options.get("share_backbone")),
        )

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
                can; that costs one more pass over each that was not trimmed.

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
            [as_text(prompts[i]) for i in flagged], [responses[i] for i in flagged], max_new_tokens, batch_size, explain
        )
        replaced = dict(zip(flagged, replacements, strict=True))
        results = []
        for i, (response, score) in enumerate(zip(responses, scores, strict=True)):
            if math.isnan(score):
                results.append(withhold(response, failure))
            elif i in replaced:
                results.append(replace(replaced[i], original_text=response, harm_score=score))
            else:
                results.append(GuardResult(response, response, score, False, Action.PASSED))
        return results

    def _replace(
        self, prompts: list[str], responses: list[str], max_new_tokens: int, batch_size: int, explain: bool
    ) -> list[GuardResult]:
        """Return for each flagged response what is shown instead: what is left of it, a rewrite, a refusal."""
        trims = [Trim(None, None)] * len(responses)
        if self.trim and isinstance(self.detector, ExplainingGuard):
            trims = trim_responses(self.detector, self.threshold, prompts, responses)
        rest = [i for i, trim in enumerate(trims) if trim.result is None]
        others = iter(
            self.replace_flagged([prompts[i] for i in rest], [responses[i] for i in rest], max_new_tokens, batch_size)
        )
        results = []
        for prompt, response, trim in zip(prompts, responses, trims, strict=True):
            where = (trim.token_scores or self._explain(prompt, response)) if explain else None
            results.append(replace(trim.result or next(others), token_scores=where))
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

    def open_stream(
        self,
        prompt: str,
        *,
        threshold: float | None = None,
        look_ahead: int = LOOK_AHEAD,
        stride: int = STRIDE,
        patience: int = PATIENCE,
        max_new_tokens: int = MAX_NEW_TOKENS,
    ) -> ProtectedStream:
        """Begin a response that is guarded while it is written; see `ProtectedStream`.

        Args:
            prompt: What the model was asked.
            threshold: Harm score from which a response is flagged; None takes the protector's own.
            look_ahead: Tokens, by the detector's count, that are checked behind all that is released.
            stride: Tokens from one check to the next; up to three times as many once the text is longer.
            patience: Tokens for which the score may stay at the threshold or above before the stream is stopped.
            max_new_tokens: Longest rewrite, in tokens.

        Raises:
            InputError: When the threshold is not in (0, 1].
            ValueError: When a number of tokens is negative, or the stride is 0.

        Example:
            stream = protector.open_stream("How do I cook rice?")
            for piece in ("Boil it ", "for twelve minutes."):
                print(stream.add(piece), end="")
            print(stream.finish(), stream.result.action)
        """
        chosen = self if threshold is None else Protector(self.detector, self.detoxifier, threshold)
        pace = {"look_ahead": look_ahead, "stride": stride, "patience": patience}
        return ProtectedStream(chosen, as_text(prompt), **pace, max_new_tokens=max_new_tokens)

    def guard_stream(self, prompt: str, pieces: Iterable[str | bytes], **options: Any) -> Iterator[str]:
        """Guard a response while it is written: pieces of text in, pieces that may be shown out.

        A harmless response comes out byte for byte. When one is stopped, nothing more is taken from `pieces`, and what
        replaces the rest is the last piece, after a blank line where something was released.

        Args:
            prompt: What the model was asked.
            pieces: The response, text or UTF-8 bytes, cut anywhere.
            options: As of `open_stream`.

        Raises:
            Exception: What `pieces` raises; of a detector or a detoxifier nothing, see `guard`.

        Example:
            "".join(protector.guard_stream("How do I cook rice?", ["Boil it ", "for twelve", " minutes."]))
        """
        stream = self.open_stream(prompt, **options)
        for piece in pieces:
            if released := stream.add(piece):
                yield released
            if stream.stopped:
                break
        if rest := stream.finish():
            yield rest
        if stream.stopped:
            yield stream.joint + stream.replacement

    def replace_flagged(
        self, prompts: list[str], responses: list[str], max_new_tokens: int, batch_size: int
    ) -> list[GuardResult]:
        """Return for each flagged response what is shown instead, without original text and score.

        Never raises for what a detoxifier or a detector does, as `guard`.
        """
        if not responses or self.detoxifier is None:
            return [refuse(None)] * len(responses)
        try:
            found: Any = self.detoxifier.rewrite(
                prompts, responses, batch_size=batch_size, max_new_tokens=max_new_tokens
            )
            rewrites = read_rewrites(found, len(responses))
        except Exception as error:  # a failing detoxifier must not let the harmful response out
            logger.exception("the detoxifier failed; %d responses are refused", len(responses))
            failure = describe_failure(DETOXIFIER, error)
            return [refuse(f"{failure.part} failed: {failure.error}", failure)] * len(responses)
        scores, failed = self._score(prompts, rewrites)
        pairs = zip(rewrites, scores, strict=True)
        return [judge_rewrite(rewrite, score, self.threshold, failed) for rewrite, score in pairs]
