"""The application: routes behind one gate; a path that is no route is refused and never forwarded."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from llava import __version__
from llava.errors import InputError
from llava.serve.errors import ApiError
from llava.serve.gate import Gate
from llava.serve.routes import classify, litellm, moderations, nemo, status
from llava.serve.service import GuardService
from llava.serve.settings import ServerSettings


class ChatDoor(Protocol):
    """What answers chats: its routes, and the models that it knows."""

    router: APIRouter

    async def start(self) -> None:
        """Get ready, before the first request."""

    async def close(self) -> None:
        """Let go of everything, after the last."""

    async def list_models(self) -> list[str]:
        """Return the names of the models that can be asked."""
        ...


def build_app(settings: ServerSettings, service: GuardService, chat: ChatDoor | None = None) -> FastAPI:
    """Return the application of a server.

    Args:
        settings: The server's settings.
        service: The guard, loaded.
        chat: What answers chats; None gives the routes of the guard alone.
    """

    @asynccontextmanager
    async def live(_: FastAPI) -> AsyncIterator[None]:
        """Start and end what the routes stand on."""
        if chat:
            await chat.start()
        yield
        service.stop()
        if chat:
            await chat.close()

    app = FastAPI(
        title="MLLM-Protector",
        version=__version__,
        lifespan=live,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
    )
    for module in (moderations, litellm, nemo, classify):
        app.include_router(module.build_router(service))
    app.include_router(status.build_router(service, chat.list_models if chat else None))
    if chat:
        app.include_router(chat.router)
    app.add_exception_handler(ApiError, answer_error)
    app.add_exception_handler(InputError, answer_bad_input)
    app.add_exception_handler(HTTPException, answer_http_error)
    app.add_middleware(Gate, settings=settings, metrics=service.metrics)
    return app


async def answer_error(_: Request, error: Any) -> JSONResponse:
    """Answer with an error."""
    return JSONResponse(error.to_dict(), error.status, headers=error.headers)


async def answer_bad_input(request: Request, error: Any) -> JSONResponse:
    """Answer a request that cannot be read."""
    return await answer_error(request, ApiError(400, str(error), code="bad_request"))


async def answer_http_error(request: Request, error: Any) -> JSONResponse:
    """Answer what the framework refuses: paths without a route, methods that a route does not take."""
    if error.status_code == 404:
        found = ApiError(404, "no such route; nothing was forwarded", code="unknown_route")
    elif error.status_code == 405:
        found = ApiError(405, "this route takes another method", code="method_not_allowed", headers=error.headers)
    else:
        found = ApiError(error.status_code, "the request was refused", headers=error.headers)
    return await answer_error(request, found)
