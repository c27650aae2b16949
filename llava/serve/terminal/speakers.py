"""Who answers in the terminal: a model in this process, or one on a server; piece by piece, until told to end."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from llava.serve.chat.messages import ImagePart, Turn, parse_chat
from llava.serve.chat.upstream import Upstream

if TYPE_CHECKING:
    from llava.model.answering.generation import MultimodalModel

Taker = Callable[[str], bool]
"""Takes a piece of an answer; says whether more of it is wanted."""
SEEDS = 1 << 62


class Speaker(Protocol):
    """Answers conversations."""

    name: str
    """What it is called."""

    def say(self, turns: list[Turn], take: Taker) -> None:
        """Answer a conversation, piece by piece, until it is done or no more is wanted.

        Raises:
            ApiError: When it cannot.
        """


class LocalSpeaker:
    """A multimodal model in this process."""

    def __init__(self, model: MultimodalModel, *, max_new_tokens: int, temperature: float):
        """Take a loaded model, the longest answer in tokens, and the sampling temperature (0 is greedy)."""
        self.model = model
        self.name = model.name
        self.max_new_tokens = max_new_tokens
        self.temperature = temperature

    def say(self, turns: list[Turn], take: Taker) -> None:
        """Answer a conversation; see `Speaker.say`."""
        from llava.serve.chat.conversation import encode_conversation, find_room
        from llava.serve.chat.writing import Writer, write

        inputs = encode_conversation(self.model, tuple(turns))
        room = find_room(self.model, inputs["input_ids"].shape[1], self.max_new_tokens)

        def show(piece: str) -> None:
            if not take(piece):
                writer.told.set()

        writer = Writer(self.model, [], show)
        seed = random.randrange(SEEDS)
        write(writer, inputs, max_new_tokens=room, temperature=self.temperature, top_p=None, seed=seed)


class RemoteSpeaker:
    """A model behind an OpenAI-compatible server."""

    def __init__(self, url: str, key: str | None, model: str, *, max_new_tokens: int, temperature: float):
        """Take the server's address and key, the model's name there, and as for `LocalSpeaker`."""
        self.url = url
        self.key = key
        self.name = model
        self.options = {"model": model, "max_tokens": max_new_tokens, "temperature": temperature, "stream": True}
        Upstream(url, key)  # an address that is none is said before the first question

    def say(self, turns: list[Turn], take: Taker) -> None:
        """Answer a conversation; see `Speaker.say`."""
        asyncio.run(self._say({**self.options, "messages": [render_turn(turn) for turn in turns]}, take))

    async def _say(self, body: dict[str, Any], take: Taker) -> None:
        """Ask, and read the answer."""
        upstream = Upstream(self.url, self.key)
        try:
            stream = await upstream.open_stream(parse_chat(body))
            try:
                async for chunk in stream:
                    for choice in chunk.get("choices") or []:
                        piece = choice.get("delta", {}).get("content")
                        if piece and not take(piece):
                            return
            finally:
                await stream.aclose()
        finally:
            await upstream.close()


def render_turn(turn: Turn) -> dict[str, Any]:
    """Return a turn as a message of OpenAI's protocol.

    Example:
        >>> render_turn(Turn("user", ("Hi.",)))
        {'role': 'user', 'content': 'Hi.'}
    """
    if not any(isinstance(part, ImagePart) for part in turn.parts):
        return {"role": turn.role, "content": turn.text}
    parts = [
        {"type": "image_url", "image_url": part.holder}
        if isinstance(part, ImagePart)
        else {"type": "text", "text": part}
        for part in turn.parts
    ]
    return {"role": turn.role, "content": parts}
