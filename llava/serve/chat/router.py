"""The route `/v1/chat/completions`."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from llava.serve.chat.backends import Backend
from llava.serve.chat.completions import guard_completion
from llava.serve.chat.guarding import ROUTE, AnswerGuard
from llava.serve.chat.images import ImageReader
from llava.serve.chat.messages import ChatRequest, parse_chat
from llava.serve.chat.streaming import StreamedAnswer
from llava.serve.errors import ApiError
from llava.serve.reading import name_unseen, read_body, read_threshold
from llava.serve.settings import ServerSettings

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from llava.serve.service import GuardService

Result = TypeVar("Result")
CLIENT_GONE = 499
"""Status, for the log alone, of a request whose client has gone (nginx's number)."""


class Chat:
    """The chat of a server: its route, and the model behind it."""

    def __init__(
        self, settings: ServerSettings, service: GuardService, backend: Backend, images: ImageReader | None = None
    ):
        """Join guard and model.

        Args:
            settings: Limits of a request.
            service: The guard.
            backend: What answers.
            images: Opens images; None takes one that fetches from public addresses alone, and that only where allowed.
        """
        self.settings = settings
        self.service = service
        self.backend = backend
        self.images = images or ImageReader(settings)
        self.router = APIRouter()
        self.router.add_api_route(ROUTE, self.complete, methods=["POST"], response_model=None)

    async def start(self) -> None:
        """Get the model ready."""
        await self.backend.start()

    async def close(self) -> None:
        """Let the model go."""
        await self.backend.close()

    async def list_models(self) -> list[str]:
        """Return the names of the models that can be asked."""
        return await self.backend.list_models()

    async def complete(self, request: Request) -> Response:
        """Answer a request for a chat completion."""
        chat = parse_chat((await read_body(request)).values)
        guard = AnswerGuard(self.service, chat, read_threshold(request.headers, self.settings))
        guard.refuse_crowd()
        await self.images.open_all(chat, keep=self.backend.sees_images)
        if chat.stream:
            begun = await until_gone(request, begin_stream(self.backend, chat, guard, self.settings))
            return EventStream(begun, name_unseen(guard.unseen))
        whole = await until_gone(request, answer_whole(self.backend, chat, guard))
        return JSONResponse(whole, headers=name_unseen(guard.unseen))


async def answer_whole(backend: Backend, chat: ChatRequest, guard: AnswerGuard) -> dict[str, Any]:
    """Return the whole answer to a request, guarded."""
    return await guard_completion(await backend.complete(chat), guard)


async def begin_stream(
    backend: Backend, chat: ChatRequest, guard: AnswerGuard, settings: ServerSettings
) -> StreamedAnswer:
    """Return an answer in pieces, of which the first one is there."""
    answer = StreamedAnswer(await backend.open_stream(chat), guard, settings.request_timeout)
    try:
        await answer.begin()
    except BaseException:
        with anyio.CancelScope(shield=True):
            await answer.close()
        raise
    return answer


class EventStream(StreamingResponse):
    """Sends an answer in pieces; when the client goes away, the model is stopped."""

    def __init__(self, answer: StreamedAnswer, headers: dict[str, str]):
        """Take an answer that has begun."""
        # Proxies before this server must not collect the pieces.
        headers = {**headers, "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(answer.events(), media_type="text/event-stream", headers=headers)
        self.answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            with anyio.CancelScope(shield=True):
                await self.answer.close()


async def until_gone(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """Return what work comes to; it is cancelled when the client goes away.

    Raises:
        ApiError: When the client has gone; nobody reads it.
    """
    task = asyncio.create_task(work)
    watcher = asyncio.create_task(_wait_until_gone(request))
    try:
        await asyncio.wait({task, watcher}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ApiError(CLIENT_GONE, "the client has gone")
        return task.result()
    finally:
        task.cancel()
        watcher.cancel()
        await asyncio.gather(task, watcher, return_exceptions=True)


async def _wait_until_gone(request: Request) -> None:
    """Return when the client goes away; the body has been read before."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
