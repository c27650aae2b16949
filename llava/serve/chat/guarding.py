"""What an answer says, how the guard is asked about it, and what is written beside it about the decision."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llava.constants import REFUSAL, WITHHELD
from llava.data.schema import Action, GuardResult
from llava.serve.chat.messages import ChatRequest
from llava.serve.errors import BusyError
from llava.serve.service import RETRY_SECONDS, is_failed_open
from llava.serve.settings import BLOCK, Rule

if TYPE_CHECKING:
    from llava.serve.service import GuardService
    from llava.serve.streams import GuardedStream

ROUTE = "/v1/chat/completions"
FILTERED = "content_filter"
"""Reason to finish of an answer of which something was held back."""
SAID_FIELDS = ("content", "reasoning_content", "reasoning", "refusal")
"""Fields of a message that hold what the model says, as text."""
CALL_FIELDS = ("tool_calls", "function_call")
KNOWN_FIELDS = {"role", *SAID_FIELDS, *CALL_FIELDS}
KEPT_FIELDS = ("id", "created", "model", "system_fingerprint", "service_tier")
"""Fields of an answer, or of a chunk of one, that go on as they are; whatever else it has is left out unread."""
PLAIN = re.compile(r"[\w.:/+@-]{1,256}", re.ASCII)
NAME = re.compile(r"\w{1,40}", re.ASCII)
FINISH = re.compile(r"[a-z_]{1,32}")
SEVERITY = (Action.PASSED, Action.TRIMMED, Action.REWRITTEN, Action.REFUSED, Action.WITHHELD)
"""Actions from the mildest on: of several texts of an answer the severest one counts."""


@dataclass(frozen=True)
class AnswerGuard:
    """Asks the guard about the answers to one request."""

    service: GuardService
    """The guard of the server."""
    request: ChatRequest
    """What is answered."""
    threshold: float | None = None
    """What the request's header asks for, already allowed."""

    @property
    def rule(self) -> Rule:
        """Threshold and action that hold for the request."""
        return self.service.find_rule(ROUTE, self.request.model, self.threshold)

    @property
    def unseen(self) -> list[str]:
        """What came with the request and is not looked at."""
        return [*(["image"] if self.request.images else []), *(["tool"] if self.request.tool_names else [])]

    async def check(self, texts: Sequence[str], *, rewrite: bool) -> list[GuardResult]:
        """Guard whole texts.

        Args:
            texts: What the model said; none is blank.
            rewrite: Whether a flagged one may be rewritten.

        Raises:
            BusyError: When too many texts wait.
        """
        if not texts:
            return []
        most = self.service.settings.max_new_tokens
        return await self.service.guard(
            [self.request.prompt] * len(texts),
            texts,
            threshold=self.threshold,
            route=ROUTE,
            model=self.request.model,
            rewrite=rewrite,
            unseen=self.unseen,
            max_new_tokens=min(most, self.request.max_tokens or most),
        )

    async def open(self) -> GuardedStream:
        """Begin to guard one text while it is written.

        Raises:
            BusyError: When too many streams are open.
        """
        return await self.service.open_stream(
            self.request.prompt,
            threshold=self.threshold,
            route=ROUTE,
            model=self.request.model,
            unseen=self.unseen,
        )

    def refuse_crowd(self) -> None:
        """Turn a request away before a model begins to work on what nobody could guard.

        Raises:
            BusyError: When too many streams are open, or too many texts wait.
        """
        limit = self.service.settings.queue_limit
        if self.service.pending >= limit and not self.service.settings.fail_open:
            self.service.metrics.turned_away.labels("queue").inc()
            raise BusyError(f"more than {limit} texts wait for the guard; come back later", RETRY_SECONDS)
        most = self.service.settings.max_streams
        if self.request.stream and self.service.open_streams + self.request.choices > most:
            self.service.metrics.turned_away.labels("streams").inc()
            raise BusyError(f"more than {most} guarded streams at a time; come back later", RETRY_SECONDS)

    @property
    def replaces(self) -> bool:
        """Whether something stands in place of a flagged text; not where the operator wants answers cut."""
        return self.rule.action != BLOCK

    def choose_text(self, result: GuardResult) -> str:
        """Return what stands in place of a flagged text."""
        return result.text if self.replaces else ""

    def choose_refusal(self, results: Iterable[GuardResult]) -> str:
        """Return what stands in place of an answer that had nothing but flagged calls."""
        if not self.replaces:
            return ""
        return WITHHELD if any(result.action is Action.WITHHELD for result in results) else REFUSAL

    def describe(self, found: Mapping[str, GuardResult], removed: Iterable[str] = ()) -> dict[str, Any]:
        """Return the object `mllm_protector` of a choice.

        Args:
            found: Name of a part of the answer → what was decided about it.
            removed: Fields that nobody could check and that were taken out.

        Returns:
            `action` (the severest), `harm_score` (the highest; null where a text has none), `threshold`, `inspected`
            and `not_inspected`; `removed`, `failed_open` and `reason` only where there is something to say.
        """
        results = list(found.values())
        scores = [result.harm_score for result in results]
        judged = [name for name, result in found.items() if result.harm_score is not None]
        whole = [score for score in scores if score is not None]
        worst = max(results, key=lambda result: SEVERITY.index(result.action), default=None)
        verdict: dict[str, Any] = {
            "action": (worst.action if worst else Action.PASSED).value,
            "harm_score": max(whole) if whole and len(whole) == len(scores) else None,
            "threshold": self.rule.threshold,
            "inspected": [*judged, *(["prompt"] if judged and self.request.prompt else [])],
            "not_inspected": [*(name for name in found if name not in judged), *self.unseen],
        }
        if removed := sorted(set(removed)):
            verdict["removed"] = removed
        if any(map(is_failed_open, results)):
            verdict["failed_open"] = True
        elif worst and worst.failure:
            # The words of an error may quote what somebody wrote.
            verdict["reason"] = f"{worst.failure.part} failed: {worst.failure.error}"
        return verdict


def is_held(result: GuardResult) -> bool:
    """Tell whether a text may not be shown as it is."""
    return result.action is not Action.PASSED


def list_unread(message: Mapping[str, Any]) -> list[str]:
    """Return the fields of a message, or of a piece of one, that hold something which nobody checks."""
    unread = [name for name, value in message.items() if name not in KNOWN_FIELDS and value not in (None, "", [], {})]
    return [name if NAME.fullmatch(name) else "other" for name in unread]


def read_text(value: Any) -> tuple[str, bool]:
    """Return the text of a field, and whether something else in it was left out: parts that are no text."""
    if isinstance(value, str):
        return value, False
    if not isinstance(value, list):
        return "", value is not None
    texts = [
        part["text"]
        for part in value
        if isinstance(part, Mapping)
        and part.get("type") in ("text", "output_text")
        and isinstance(part.get("text"), str)
    ]
    return "".join(texts), len(texts) < len(value)


def keep_known(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return those fields of an answer that go on as they are: short names and numbers, which can hold no message."""
    return {
        name: value
        for name in KEPT_FIELDS
        if isinstance(value := answer.get(name), int) or (isinstance(value, str) and PLAIN.fullmatch(value))
    }


def clean_usage(usage: Any) -> dict[str, Any] | None:
    """Return how many tokens an answer took: numbers alone; None when nothing is known."""
    if not isinstance(usage, Mapping):
        return None
    kept: dict[str, Any] = {}
    for name, value in usage.items():
        if not NAME.fullmatch(name):
            continue
        if isinstance(value, Mapping):
            kept[name] = clean_usage(value)
        elif value is None or isinstance(value, int | float):
            kept[name] = value
    return kept


def clean_finish(reason: Any, default: str = "stop") -> str:
    """Return a reason to finish; one that is no plain word says nothing."""
    return reason if isinstance(reason, str) and FINISH.fullmatch(reason) else default
