"""`/v1/models`, `/health`, `/ready`, `/metrics`: what the server is and how it does."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from llava.serve.errors import ApiError
from llava.serve.service import GuardService

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def build_router(service: GuardService, list_chat_models: Callable[[], Awaitable[list[str]]] | None) -> APIRouter:
    """Return the routes.

    Args:
        service: The guard.
        list_chat_models: Names the models that answer chats; None where there are none.
    """
    router = APIRouter()
    begun = int(time.time())

    async def list_entries() -> list[dict[str, Any]]:
        """Return all models in OpenAI's form, the guard last."""
        names = await list_chat_models() if list_chat_models else []
        entries = [{"id": name, "object": "model", "created": begun, "owned_by": "guarded"} for name in names]
        return [*entries, describe_guard(service, begun)]

    @router.get("/v1/models")
    async def models(_: Request) -> JSONResponse:
        return JSONResponse({"object": "list", "data": await list_entries()})

    @router.get("/v1/models/{name:path}")
    async def model(_: Request, name: str) -> JSONResponse:
        for entry in await list_entries():
            if entry["id"] == name:
                return JSONResponse(entry)
        raise ApiError(404, "no such model; see /v1/models", param="model", code="model_not_found")

    @router.get("/health")
    async def health(_: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"})

    @router.get("/ready")
    async def ready(_: Request) -> JSONResponse:
        fine = service.is_ready()
        return JSONResponse({"status": "ready" if fine else "not ready"}, 200 if fine else 503)

    @router.get("/metrics")
    async def metrics(_: Request) -> Response:
        return Response(service.metrics.render(), media_type=METRICS_TYPE)

    return router


def describe_guard(service: GuardService, begun: int) -> dict[str, Any]:
    """Return the guard as an entry of `/v1/models`; a remote guard reads from it what it stands for."""
    detector = service.protector.detector
    return {
        "id": service.settings.guard_name,
        "object": "model",
        "created": begun,
        "owned_by": "mllm-protector",
        "guard": {"identity": detector.identity, "threshold": service.find_rule("/classify", None).threshold},
    }
