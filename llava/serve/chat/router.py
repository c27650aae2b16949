"""The route `/v1/chat/completions`."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from llava.errors import InputError
from llava.files import parse_json
from llava.serve.chat.backends import Backend
from llava.serve.chat.completions import guard_completion
from llava.serve.chat.guarding import ROUTE, AnswerGuard
from llava.serve.chat.images import ImageReader
from llava.serve.chat.messages import ChatRequest, parse_chat
from llava.serve.chat.streaming import StreamedAnswer
from llava.serve.errors import ApiError
from llava.serve.settings import ServerSettings

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from llava.serve.service import GuardService

Result = TypeVar("Result")
CLIENT_GONE = 499
"""Status, for the log alone, of a request whose client has gone (nginx's number)."""


def build_chat_router(
    settings: ServerSettings, service: GuardService, backend: Backend, reader: ImageReader | None = None
) -> APIRouter:
    """Return the routes of the chat.

    Args:
        settings: Limits of a request.
        service: The guard.
        backend: What answers.
        reader: Opens images; None takes one that fetches from public addresses alone, and that only where allowed.
    """
    images = reader or ImageReader(settings)
    router = APIRouter()

    @router.post(ROUTE)
    async def complete(request: Request) -> Response:
        chat = parse_chat(read_body(await request.body()))
        guard = AnswerGuard(service, chat, read_threshold(request, settings))
        if chat.stream:
            guard.refuse_crowd()
        await images.open_all(chat)
        if chat.stream:
            return EventStream(await until_gone(request, begin_stream(backend, chat, guard, settings)))
        return JSONResponse(await until_gone(request, answer_whole(backend, chat, guard)))

    return router


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

    def __init__(self, answer: StreamedAnswer):
        """Take an answer that has begun."""
        # Proxies before this server must not collect the pieces.
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
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


def read_body(data: bytes) -> Any:
    """Return the JSON in a request.

    Raises:
        ApiError: When it is none.
    """
    try:
        return parse_json(data.decode("utf-8"), "the request", "send a JSON object")
    except UnicodeDecodeError:
        raise ApiError(400, "the request is not UTF-8; send a JSON object in UTF-8") from None
    except InputError as error:
        raise ApiError(400, str(error)) from None


def read_threshold(request: Request, settings: ServerSettings) -> float | None:
    """Return the threshold that a request asks for in `X-Guard-Threshold`; None where it asks for none.

    Raises:
        ApiError: When it may not, or asks for something else than a threshold.
    """
    value = request.headers.get("x-guard-threshold")
    if value is None:
        return None
    if not settings.allow_header_threshold:
        raise ApiError(400, "this server does not let requests set a threshold; leave X-Guard-Threshold out")
    try:
        threshold = float(value)
    except ValueError:
        threshold = 0.0
    if not 0 < threshold <= 1:
        raise ApiError(400, "X-Guard-Threshold must be above 0 and at most 1")
    return threshold
