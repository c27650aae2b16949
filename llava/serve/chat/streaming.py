"""Guarding an answer while it is written: a piece leaves when the guard has let it go, and not before."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from llava.serve.chat.backends import ChunkStream
from llava.serve.chat.choices import ChoiceGuard, Delta
from llava.serve.chat.guarding import AnswerGuard, clean_usage, keep_known
from llava.serve.chat.sse import DONE, render_event
from llava.serve.errors import BROKEN, ApiError

logger = logging.getLogger(__name__)
MOST_WAITING = 256
"""Chunks that are read ahead of the guard."""
USAGE_SECONDS = 10.0
"""How long an upstream whose answer was cut is listened to for what it took, where the client wants to know."""
LEAVE_SECONDS = 1.0
"""How long the end of an answer is waited for of which everything is there."""
KEEP_ALIVE_SECONDS = 15.0
"""Silence after which a comment is sent: proxies close connections on which nothing happens."""
KEEP_ALIVE = b": still there\n\n"
ENDED = None


class StreamedAnswer:
    """One answer in pieces, of one or several choices.

    `begin` waits for the first chunk, so that what is wrong with a request still becomes a status of its own; `events`
    gives the bytes of the answer; `close` ends everything, whoever went away first.
    """

    def __init__(self, chunks: ChunkStream, guard: AnswerGuard, seconds: float):
        """Take an answer that has begun.

        Args:
            chunks: What the model says, not yet guarded.
            guard: Knows request and guard.
            seconds: Time that the whole answer may take.
        """
        self.chunks = chunks
        self.guard = guard
        self.request = guard.request
        self.deadline = time.monotonic() + seconds
        self.seconds = seconds
        self.queue: asyncio.Queue[dict[str, Any] | ApiError | None] = asyncio.Queue(MOST_WAITING)
        self.reader: asyncio.Task[None] | None = None
        self.choices: dict[int, ChoiceGuard] = {}
        self.head: dict[str, Any] = {}
        self.usage: dict[str, Any] | None = None
        self.pieces = 0
        self.first: list[dict[str, Any]] = []
        self.at_end = False

    async def begin(self) -> None:
        """Wait for the first chunk.

        Raises:
            ApiError: When there is none.
        """
        self.reader = asyncio.create_task(self._read())
        while not self.first and not self.at_end:
            self.first = await self._take(self.deadline)
        if not self.first:
            raise self._find_nothing()

    async def events(self) -> AsyncIterator[bytes]:
        """Give the events of the answer, the end mark last."""
        try:
            batch = self.first
            while True:
                for event in await self._guard(batch):
                    yield event
                if self.at_end or self.is_over():
                    break
                batch = await self._take(self.deadline)
                if not batch and not self.at_end:
                    yield KEEP_ALIVE
            for event in await self._finish():
                yield event
            if self.request.include_usage:
                yield self._render([], await self._find_usage())
        except ApiError as error:
            # The status has gone out long since; clients know an error by its name in an event, and read no further.
            if self.request.include_usage:
                yield self._render([], self._count_usage())
            yield render_event(error.to_dict())
        except Exception:  # a defect of ours: nothing more leaves, and the client sees a clean end
            logger.exception("a guarded stream failed")
            yield render_event(ApiError(500, "the server failed; nothing more is shown", kind=BROKEN).to_dict())
        yield render_event(DONE)
        if not any(choice.was_cut for choice in self.choices.values()):
            # Read to its end, an upstream's connection serves the next request too.
            await self._read_out(LEAVE_SECONDS)

    async def close(self) -> None:
        """Stop the model, and let go of the guard's streams."""
        if self.reader is not None:
            self.reader.cancel()
            await asyncio.gather(self.reader, return_exceptions=True)
        await self.chunks.aclose()
        for choice in self.choices.values():
            choice.close()

    def is_over(self) -> bool:
        """Tell whether every choice that was asked for has ended."""
        ended = sum(choice.ended for choice in self.choices.values())
        return ended >= self.request.choices

    async def _read(self) -> None:
        """Read chunks ahead; the last entry of the queue is an error or the end."""
        try:
            async for chunk in self.chunks:
                await self.queue.put(chunk)
        except ApiError as error:
            await self.queue.put(error)
        except Exception:  # whoever waits for the queue must not wait for ever
            logger.exception("a model's stream failed")
            await self.queue.put(ApiError(500, "the model failed", kind=BROKEN))
        else:
            await self.queue.put(ENDED)

    async def _take(self, deadline: float) -> list[dict[str, Any]]:
        """Wait for the next chunk, and take with it all that have come meanwhile: the guard reads them in one go.

        Returns:
            Chunks; none at the end (`at_end`), or when nothing came for a while.

        Raises:
            ApiError: When the model failed, or the time is over.
        """
        rest = deadline - time.monotonic()
        try:
            entry = await asyncio.wait_for(self.queue.get(), max(0.0, min(rest, KEEP_ALIVE_SECONDS)))
        except (asyncio.TimeoutError, TimeoutError):
            if rest > KEEP_ALIVE_SECONDS:
                return []
            raise ApiError(504, f"the answer took more than {self.seconds:g} s", kind=BROKEN) from None
        taken: list[dict[str, Any]] = []
        while True:
            if isinstance(entry, ApiError):
                if taken:
                    # What came before the failure is guarded first.
                    self.queue.put_nowait(entry)
                    return taken
                raise entry
            if entry is ENDED:
                self.at_end = True
                return taken
            taken.append(entry)
            if self.queue.empty():
                return taken
            entry = self.queue.get_nowait()

    async def _guard(self, batch: list[dict[str, Any]]) -> list[bytes]:
        """Put chunks through the guard, all choices at once; return the events of what may leave."""
        entries: dict[int, list[Mapping[str, Any]]] = {}
        for chunk in batch:
            self._note(chunk)
            listed = chunk.get("choices")
            for entry in listed if isinstance(listed, list) else []:
                index = entry.get("index", 0) if isinstance(entry, Mapping) else None
                # Nobody asked for more choices, and each has a guard of its own.
                if isinstance(index, int) and 0 <= index < self.request.choices:
                    entries.setdefault(index, []).append(entry)
        self.pieces += sum(map(len, entries.values()))
        deltas = await asyncio.gather(*(self._advance(index, pieces) for index, pieces in entries.items()))
        return [self._render([delta]) for found in deltas for delta in found]

    async def _advance(self, index: int, entries: list[Mapping[str, Any]]) -> list[Delta]:
        """Put the pieces of one choice through its guard."""
        choice = self.choices.setdefault(index, ChoiceGuard(index, self.guard))
        if choice.ended:
            return []
        deltas = await choice.take(entries)
        if choice.ended:
            self.chunks.drop(index)
        return deltas

    async def _finish(self) -> list[bytes]:
        """End the choices that the model left open."""
        if not self.choices:
            raise self._find_nothing()
        deltas = [delta for choice in self.choices.values() for delta in await choice.finish(None)]
        return [self._render([delta]) for delta in deltas]

    def _find_nothing(self) -> ApiError:
        """Return the error of a model that gave no answer at all."""
        return ApiError(502, "the model's answer has no choices", kind=BROKEN, code="upstream_error")

    def _note(self, chunk: Mapping[str, Any]) -> None:
        """Keep what a chunk says about the answer as a whole."""
        self.head = self.head or keep_known(chunk)
        self.usage = clean_usage(chunk.get("usage")) or self.usage

    async def _find_usage(self) -> dict[str, Any]:
        """Return how many tokens the answer took, in the model's own words where it has some.

        An upstream says so at its very end, so one whose answer was cut is listened to a little longer; nothing of what
        it says then is shown.
        """
        await self._read_out(USAGE_SECONDS)
        return self._count_usage()

    async def _read_out(self, seconds: float) -> None:
        """Read what is left of an answer without showing any of it."""
        deadline = time.monotonic() + seconds
        with contextlib.suppress(ApiError):
            while not self.at_end:
                for chunk in await self._take(deadline):
                    self.pieces += bool(chunk.get("choices"))
                    self._note(chunk)

    def _count_usage(self) -> dict[str, Any]:
        """Return what is known of the tokens that the answer took, or an estimate that says that it is one."""
        if self.usage and self.usage.get("completion_tokens") is not None:
            return self.usage
        # Most servers send a token a piece, and a token has about four letters.
        prompt = math.ceil(len(json.dumps(self.request.body.get("messages"))) / 4)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": self.pieces,
            "total_tokens": prompt + self.pieces,
            "mllm_protector": {"estimated": True},
        }

    def _render(self, deltas: list[Delta], usage: dict[str, Any] | None = None) -> bytes:
        """Return one chunk as an event."""
        chunk: dict[str, Any] = {**self.head, "object": "chat.completion.chunk", "choices": deltas}
        if self.request.include_usage:
            chunk["usage"] = usage
        return render_event(chunk)
