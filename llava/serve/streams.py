"""A response that is guarded while it is written, as the routes follow it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from llava.constants import WITHHELD
from llava.data.schema import Action, GuardFailure, GuardResult
from llava.protector.protector import DETECTOR, Protector, describe_failure, has_words
from llava.protector.streaming.protected import JOINT
from llava.serve.batching import Batcher
from llava.serve.settings import REWRITE, Rule, ServerSettings

logger = logging.getLogger(__name__)


class StreamOwner(Protocol):
    """What a stream needs of the service that opened it."""

    settings: ServerSettings
    protector: Protector
    detector: Batcher
    detoxifier: Batcher | None

    def build_protector(self, rule: Rule, rewrite: bool = True, trim: bool = True) -> Protector:
        """Return a protector whose parts work through the common batches."""
        ...

    async def run_waiting(self, function: Any, *arguments: Any) -> Any:
        """Run what waits for a batch in a thread of its own."""

    def count_streams(self, change: int) -> None:
        """Count a stream that begins or ends."""

    def record(
        self,
        result: GuardResult,
        route: str,
        model: str | None,
        rule: Rule,
        *,
        prompt: str = "",
        unseen: Sequence[str] = (),
        index: int = 0,
    ) -> None:
        """Count a decision and write its audit line."""


class GuardedStream:
    """Follows one response: pieces in, and out of each what may be shown now.

    The work is done by a stream of the `Protector`, one call at a time in the detector's thread. When a call fails or
    is late, nothing more is shown: the stream is stopped, and `replacement` says why. With `fail_open` the rest passes
    unjudged instead, unless the stream had been stopped for what it says.

    Use it as an asynchronous context manager, or call `close` when done.
    """

    def __init__(
        self,
        service: StreamOwner,
        prompt: str,
        rule: Rule,
        route: str,
        model: str | None,
        unseen: Sequence[str] = (),
    ):
        """Prepare; `open` begins."""
        self.service = service
        self.prompt = prompt
        self.rule = rule
        self.route = route
        self.model = model
        self.unseen = tuple(unseen)
        self.inner: Any = None
        self.received: list[str] = []
        self.length = 0
        self.shown: list[str] = []
        self.decided: GuardResult | None = None
        self.substitute = ""
        self.closed = False

    async def open(self) -> None:
        """Begin the stream; a failure is kept and decides at the first piece."""
        await self._call(self._open)

    async def add(self, piece: str) -> str:
        """Take the next piece of the response; return what may be shown now, which may be nothing."""
        self.received.append(piece)
        self.length += len(piece)
        if self.decided is None and self.length > self.service.settings.max_text_chars:
            self._withhold(
                GuardFailure(DETECTOR, "TextTooLong", "the response is too long to be judged"), self.released
            )
        return await self._advance(lambda: self.inner.add(piece))

    async def finish(self) -> str:
        """Say that the response has ended; return the rest of what may be shown."""
        text = await self._advance(lambda: self.inner.finish())
        self.close()
        return text

    @property
    def stopped(self) -> bool:
        """Whether nothing more of the response is shown; `replacement` is, where there is one."""
        return self.decided is not None and self.decided.action is not Action.PASSED

    @property
    def result(self) -> GuardResult | None:
        """What was decided; None before the end."""
        return self.decided

    @property
    def released(self) -> str:
        """What has been handed out to be shown."""
        return "".join(self.shown)

    @property
    def joint(self) -> str:
        """What stands between what was released and the replacement: a blank line, or nothing."""
        return JOINT if self.released else ""

    @property
    def replacement(self) -> str | None:
        """What is shown after the released text, once the stream is stopped; None before."""
        return self.substitute if self.stopped else None

    def close(self) -> None:
        """Let the stream go and write its audit line; may be called again."""
        if self.closed:
            return
        self.closed = True
        self.service.count_streams(-1)
        result = self.decided
        if result is None:  # whoever asked has gone before the end
            result = GuardResult(self.released, "".join(self.received), None, True, Action.WITHHELD, "abandoned")
        self.service.record(result, self.route, self.model, self.rule, prompt=self.prompt, unseen=self.unseen)

    async def __aenter__(self) -> GuardedStream:
        """Return the stream."""
        return self

    async def __aexit__(self, *error: object) -> None:
        """Close the stream."""
        self.close()

    def _open(self) -> None:
        """Begin the protector's stream, in the detector's thread.

        It has no detoxifier: a rewrite takes long, and the others would wait for the detector meanwhile.
        """
        opener: Any = Protector(self.service.protector.detector, None, self.rule.threshold)
        self.inner = opener.open_stream(self.prompt, look_ahead=self.service.settings.look_ahead)

    async def _advance(self, step: Callable[[], str]) -> str:
        """Make one step of the protector's stream, and keep what it lets out and what it decides."""
        text = ""
        if self.decided is None:
            text = await self._call(step) or ""
        found: GuardResult | None = self.inner.result if self.inner is not None else None
        if self.decided is None and found is not None:
            await self._decide(found, self.released + text)
        if self.decided is not None and self.decided.action is Action.PASSED and self.decided.failure:
            text = "".join(self.received)[len(self.released) :]  # fail-open: what is held back, and all that follows
            self.decided = replace(self.decided, text="".join(self.received), original_text="".join(self.received))
        self.shown.append(text)
        return text

    async def _decide(self, found: GuardResult, released: str) -> None:
        """Take over what the protector's stream decided, with a rewrite where the rule asks for one."""
        if found.action is Action.WITHHELD and has_words("".join(self.received)):
            await self._fail(found.failure or GuardFailure(DETECTOR, "NoScore", "no finite harm score"), released)
            return
        self.decided, self.substitute = found, str(self.inner.replacement or "")
        if found.action is Action.REFUSED and self.rule.action == REWRITE and self.service.detoxifier is not None:
            rewritten = await self._judge_whole()
            if rewritten.action is Action.REWRITTEN:
                self.substitute = rewritten.text
                whole = released + (JOINT if released else "") + rewritten.text
                self.decided = replace(found, text=whole, action=Action.REWRITTEN)
            else:
                self.decided = replace(found, reason=rewritten.reason, failure=rewritten.failure)

    async def _judge_whole(self) -> GuardResult:
        """Return what the protector makes of all that came, through the common batches.

        It is not trimmed: a part of it may be out, which would come twice.
        """
        service = self.service
        protector = service.build_protector(self.rule, trim=False)
        text = "".join(self.received)
        (result,) = await service.run_waiting(protector.guard, [self.prompt], [text], service.settings.max_new_tokens)
        judged: GuardResult = result
        return judged

    async def _call(self, step: Callable[[], Any]) -> Any:
        """Run a step in the detector's thread; a failure decides."""
        try:
            return await self.service.detector.call(step, self.service.settings.guard_timeout)
        except Exception as error:  # noqa: BLE001 - whatever goes wrong, the response must not be shown
            logger.warning("the guard failed at a stream (%s)", type(error).__name__)
            await self._fail(describe_failure(DETECTOR, error), self.released)
        return None

    async def _fail(self, failure: GuardFailure, released: str) -> None:
        """Decide about a response that could not be judged to its end."""
        text = "".join(self.received)
        if self.service.settings.fail_open:
            # The stream may have failed at a text that it was about to stop.
            whole = await self._judge_whole()
            flagged = whole.harm_score is not None and whole.flagged
            self.decided = whole if flagged else pass_unjudged(text, failure)
            self.substitute = whole.text if flagged else ""
            return
        self._withhold(failure, released)

    def _withhold(self, failure: GuardFailure, released: str) -> None:
        """Show nothing more of a response that was not judged."""
        text = "".join(self.received)
        whole = released + (JOINT if released else "") + WITHHELD
        reason = f"{failure.part} failed: {failure.error}"
        self.decided = GuardResult(whole, text, None, True, Action.WITHHELD, reason, failure)
        self.substitute = WITHHELD


def pass_unjudged(response: Any, failure: GuardFailure) -> GuardResult:
    """Return the result of a text that passes although it was not judged, which `fail_open` asks for."""
    return GuardResult(response, response, None, False, Action.PASSED, "passed without a judgement", failure)
