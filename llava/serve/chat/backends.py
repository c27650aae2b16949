"""What answers behind the guard: the interface that a model in this process and an upstream server share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Protocol

from llava.serve.chat.messages import ChatRequest


class ChunkStream(Protocol):
    """The chunks of an answer under way, in OpenAI's form (`chat.completion.chunk`); not yet guarded."""

    def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
        """Give the chunks in their order; what fails raises `ApiError`."""

    def drop(self, index: int) -> None:
        """Say that nobody wants any more of a choice; what can be spared is spared."""

    async def aclose(self) -> None:
        """End the answer, wherever it is."""


class Backend(Protocol):
    """Answers chat requests; what it returns is not yet guarded."""

    name: str
    """What messages and logs call it."""
    sees_images: bool
    """Whether it wants the images of a request decoded; else they are checked and let go."""

    async def start(self) -> None:
        """Get ready; `InputError` says why it cannot."""

    async def close(self) -> None:
        """Let go of everything."""

    async def list_models(self) -> list[str]:
        """Return the names of the models that can be asked; `ApiError` when nobody knows."""

    async def complete(self, request: ChatRequest) -> dict[str, Any]:
        """Return a whole answer (`chat.completion`)."""

    async def open_stream(self, request: ChatRequest) -> ChunkStream:
        """Begin an answer in pieces; fails before the first one where the request itself is the reason."""
