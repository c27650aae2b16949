"""A multimodal model in this process that answers chat requests, one at a time."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from llava.serve.chat.messages import ChatRequest
from llava.serve.errors import BROKEN, ApiError, BusyError

if TYPE_CHECKING:
    from llava.model.answering.generation import MultimodalModel
    from llava.serve.chat.writing import Writer

logger = logging.getLogger(__name__)
TEMPERATURE = 1.0
"""Sampling temperature of a request that names none, as OpenAI's protocol has it."""
RETRY_SECONDS = 5.0
READ = {
    *("model", "messages", "n", "stop", "max_tokens", "max_completion_tokens", "temperature", "top_p", "seed"),
    *("stream", "stream_options"),
}
"""Fields that are followed."""
WITHOUT_EFFECT = {
    *("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "parallel_tool_calls"),
    *("modalities", "verbosity"),
}
"""Fields that say nothing about the answer's text."""
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
}
"""Fields that are not followed → values that ask for nothing."""


class InProcessModel:
    """Answers with a model in this process; a `Backend`.

    One answer is written at a time, in a thread of its own; others wait. Whoever expects many requests at once puts the
    guard before a server that batches.
    """

    sees_images = True

    def __init__(self, model: MultimodalModel, name: str, *, max_new_tokens: int = 256, queue_limit: int = 64):
        """Take a loaded model.

        Args:
            model: The model.
            name: What clients call it.
            max_new_tokens: Longest answer in tokens where a request names no limit.
            queue_limit: Requests that may be under way or wait.
        """
        self.model = model
        self.name = name
        self.max_new_tokens = max_new_tokens
        self.queue_limit = queue_limit
        self.created = int(time.time())
        self.under_way = 0
        self.closed = False
        self.streams: set[WrittenStream] = set()
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="model")

    async def start(self) -> None:
        """Do nothing: the model is loaded."""

    async def close(self) -> None:
        """Take no more requests; whoever writes ends at the next token."""
        self.closed = True
        for stream in list(self.streams):
            await stream.aclose()
        self.thread.shutdown(wait=False, cancel_futures=True)

    async def list_models(self) -> list[str]:
        """Return the model's name."""
        return [self.name]

    async def complete(self, request: ChatRequest) -> dict[str, Any]:
        """Return a whole answer.

        Raises:
            ApiError: When the request asks for what the model cannot do, or it fails.
        """
        stream = await self.open_stream(request)
        texts, reasons, head = [""] * request.choices, ["stop"] * request.choices, {}
        try:
            async for chunk in stream:
                head = chunk
                for choice in chunk["choices"]:
                    texts[choice["index"]] += choice["delta"].get("content", "")
                    reasons[choice["index"]] = choice["finish_reason"] or reasons[choice["index"]]
        finally:
            await stream.aclose()
        choices = [
            {"index": index, "message": {"role": "assistant", "content": text}, "finish_reason": reasons[index]}
            for index, text in enumerate(texts)
        ]
        return {**head, "object": "chat.completion", "choices": choices}

    async def open_stream(self, request: ChatRequest) -> WrittenStream:
        """Begin an answer in pieces.

        Raises:
            ApiError: When the request asks for what the model cannot do.
        """
        from llava.serve.chat.conversation import encode_conversation, find_room

        self._refuse_unsupported(request)
        if self.under_way >= self.queue_limit:
            raise BusyError(f"{self.under_way} requests wait for the model; come back later", RETRY_SECONDS)
        self.under_way += 1
        try:
            inputs = await asyncio.to_thread(encode_conversation, self.model, request.turns)
            room = find_room(self.model, inputs["input_ids"].shape[1], request.max_tokens or self.max_new_tokens)
            stream = WrittenStream(self, request, inputs, room)
            self.streams.add(stream)
            return stream
        except BaseException:
            self.under_way -= 1
            raise

    def _refuse_unsupported(self, request: ChatRequest) -> None:
        """Refuse a request for another model, or for what this one cannot do."""
        if request.model not in (None, self.name):
            raise ApiError(
                404, f"there is no model of that name; ask {self.name}", param="model", code="model_not_found"
            )
        for name, value in request.body.items():
            if name in READ or name in WITHOUT_EFFECT or value is None or value in NEUTRAL.get(name, ()):
                continue
            shown = name if name.isidentifier() and len(name) < 64 else "a field"
            raise ApiError(400, f"'{shown}' is not supported by a model in this process; leave it out", param=shown)


class WrittenStream:
    """The chunks of an answer that a model in this process writes; a `ChunkStream`."""

    def __init__(self, owner: InProcessModel, request: ChatRequest, inputs: dict[str, Any], room: int):
        """Take what is to be written."""
        self.owner = owner
        self.request = request
        self.inputs = inputs
        self.room = room
        self.head = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": owner.name,
        }
        self.writers: dict[int, Writer] = {}
        self.dropped: set[int] = set()
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
        """Give the chunks, one choice after the other, and how many tokens they took at last.

        Raises:
            ApiError: When the model fails.
        """
        for index in range(self.request.choices):
            if index in self.dropped:
                continue
            async for piece in self._write(index):
                yield self._build(index, {"content": piece}, None)
            yield self._build(index, {}, self.writers[index].reason)
        prompt = self.inputs["input_ids"].shape[1]
        written = sum(len(writer.ids) for writer in self.writers.values())
        usage = {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}
        yield {**self.head, "choices": [], "usage": usage}

    def drop(self, index: int) -> None:
        """Write no more of a choice."""
        self.dropped.add(index)
        if index in self.writers:
            self.writers[index].told.set()

    async def aclose(self) -> None:
        """Write no more at all."""
        if not self.closed:
            self.closed = True
            self.owner.streams.discard(self)
            self.owner.under_way -= 1
        for index in range(self.request.choices):
            self.drop(index)

    async def _write(self, index: int) -> AsyncIterator[str]:
        """Give the pieces of one choice while the model's thread writes them."""
        from llava.serve.chat.writing import Writer, write

        request, loop = self.request, asyncio.get_running_loop()
        pieces: asyncio.Queue[str | None] = asyncio.Queue()
        writer = Writer(
            self.owner.model, request.stop, lambda piece: loop.call_soon_threadsafe(pieces.put_nowait, piece)
        )
        self.writers[index] = writer
        seed = secrets.randbits(62) if request.seed is None else (request.seed + index) % (1 << 63)

        def run() -> None:
            if writer.told.is_set() or self.owner.closed:
                return
            write(
                writer,
                self.inputs,
                max_new_tokens=self.room,
                temperature=TEMPERATURE if request.temperature is None else request.temperature,
                top_p=request.top_p,
                seed=seed,
            )

        try:
            job = loop.run_in_executor(self.owner.thread, run)
        except RuntimeError:
            raise ApiError(503, "the server is ending", kind=BROKEN) from None
        job.add_done_callback(lambda _: pieces.put_nowait(None))
        try:
            while (piece := await pieces.get()) is not None:
                yield piece
            await self._explain(job)
        finally:
            writer.told.set()

    async def _explain(self, job: asyncio.Future[None]) -> None:
        """Raise what the model's thread failed with."""
        try:
            await job
        except asyncio.CancelledError:
            if not job.cancelled():
                raise
            raise ApiError(503, "the server is ending", kind=BROKEN) from None
        except Exception as error:
            logger.exception("the model failed")
            raise ApiError(500, f"the model failed: {type(error).__name__}", kind=BROKEN) from None

    def _build(self, index: int, delta: dict[str, str], reason: str | None) -> dict[str, Any]:
        """Return a chunk."""
        return {**self.head, "choices": [{"index": index, "delta": delta, "finish_reason": reason}]}
