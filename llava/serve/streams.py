"""A response that is guarded while it is written, as the routes follow it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from llava.constants import WITHHELD
from llava.data.schema import Action, GuardFailure, GuardResult
from llava.protector.protector import DETECTOR, Protector, describe_failure
from llava.serve.parts import BatchedDetoxifier
from llava.serve.settings import REWRITE, Rule

if TYPE_CHECKING:
    from llava.serve.service import GuardService

logger = logging.getLogger(__name__)


class GuardedStream:
    """Follows one response: pieces in, and out of each what may be shown now.

    The work is done by a stream of the `Protector`, one call at a time in the detector's thread. When a call fails or
    is late, nothing more is shown: the stream is stopped, and `replacement` says why. With `fail_open` the rest passes
    unjudged instead, unless the stream had been stopped for what it says.

    Use it as an asynchronous context manager, or call `close` when done.
    """

    def __init__(
        self,
        service: GuardService,
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
        self.shown: list[str] = []
        self.failed: GuardResult | None = None
        self.closed = False

    async def open(self) -> None:
        """Begin the stream; a failure is kept and decides at the first piece."""
        await self._call(self._open)

    async def add(self, piece: str) -> str:
        """Take the next piece of the response; return what may be shown now, which may be nothing."""
        self.received.append(piece)
        return await self._advance(lambda: self.inner.add(piece))

    async def finish(self) -> str:
        """Say that the response has ended; return the rest of what may be shown."""
        text = await self._advance(lambda: self.inner.finish())
        self.close()
        return text

    @property
    def stopped(self) -> bool:
        """Whether nothing more of the response is shown; `replacement` is, where there is one."""
        return self.failed.action is not Action.PASSED if self.failed else bool(self.inner.stopped)

    @property
    def result(self) -> GuardResult | None:
        """What was decided; None before the end."""
        if self.failed:
            return self.failed
        result: GuardResult | None = self.inner.result
        return result

    @property
    def released(self) -> str:
        """What has been handed out to be shown."""
        return "".join(self.shown)

    @property
    def replacement(self) -> str | None:
        """What is shown after the released text, once the stream is stopped; None before, and where nothing is."""
        if not self.stopped:
            return None
        if self.failed:
            return WITHHELD
        replacement: str | None = self.inner.replacement
        return replacement

    def close(self) -> None:
        """Let the stream go and write its audit line; may be called again."""
        if self.closed:
            return
        self.closed = True
        self.service.count_streams(-1)
        result = self.result
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
        """Begin the protector's stream, in the detector's thread."""
        owner = self.service.protector
        # A rewrite waits in its own queue; what it takes of the guard's time is bounded like everything else.
        deadline = time.monotonic() + self.service.settings.request_timeout
        writer: Any = None
        if self.rule.action == REWRITE and self.service.detoxifier is not None:
            writer = BatchedDetoxifier(self.service.detoxifier, deadline)
        opener: Any = Protector(owner.detector, writer, self.rule.threshold)
        self.inner = opener.open_stream(self.prompt)

    async def _advance(self, step: Callable[[], str]) -> str:
        """Make one step of the protector's stream, and keep what it lets out."""
        text = ""
        if not self.failed:
            text = await self._call(step) or ""
        if self.failed and not self.stopped:  # fail-open: what is held back, and all that follows
            text = "".join(self.received)[len(self.released) :]
        self.shown.append(text)
        return text

    async def _call(self, step: Callable[[], Any]) -> Any:
        """Run a step in the detector's thread; keep the failure where there is one."""
        settings = self.service.settings
        try:
            return await self.service.detector.call(step, settings.guard_timeout)
        except Exception as error:  # noqa: BLE001 - whatever goes wrong, the response must not be shown
            logger.warning("the guard failed at a stream (%s)", type(error).__name__)
            failure = describe_failure(DETECTOR, error)
        text = "".join(self.received)
        # What was stopped for what it says stays stopped.
        if settings.fail_open and not (self.inner is not None and self.inner.stopped):
            self.failed = pass_unjudged(text, failure)
        else:
            reason = f"{failure.part} failed: {failure.error}"
            self.failed = GuardResult(self.released + WITHHELD, text, None, True, Action.WITHHELD, reason, failure)
        return None


def pass_unjudged(response: Any, failure: GuardFailure) -> GuardResult:
    """Return the result of a text that passes although it was not judged, which `fail_open` asks for."""
    return GuardResult(response, response, None, False, Action.PASSED, "passed without a judgement", failure)
