"""A model behind an OpenAI-compatible server, with the interface of `MultimodalModel`."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from llava.model.answering.client import ChatClient, build_content
from llava.model.answering.replies import Answer
from llava.model.answering.window import map_window

if TYPE_CHECKING:
    from PIL.Image import Image


class EndpointModel:
    """A served model, with the interface of `MultimodalModel`.

    Attributes:
        name: Name of the model on the server.
        notes: Sentences that a reader of results must know.
    """

    def __init__(self, client: ChatClient, concurrency: int = 8):
        """Answer through `client`, with at most `concurrency` requests under way."""
        self.client = client
        self.concurrency = concurrency
        self.name = client.model
        self.notes = [f"answers came from {client.base_url}; whether they can be repeated is up to that server"]

    def answer(
        self,
        prompt: str,
        image: Image | None = None,
        *,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        seed: int | None = None,
        ended: threading.Event | None = None,
    ) -> Answer:
        """Answer one question; see `ChatClient.ask`."""
        content = prompt if image is None else build_content(prompt, image)
        return self.client.ask(content, max_tokens=max_new_tokens, temperature=temperature, seed=seed, ended=ended)

    def generate(
        self,
        prompts: Sequence[str],
        images: Sequence[Image | None] | None = None,
        *,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        seeds: Sequence[int] | None = None,
    ) -> list[str]:
        """Answer each prompt, with an empty text where it is turned down or no answer comes; `answer` tells which.

        See `MultimodalModel.generate`.

        Raises:
            InputError: When the server does not take such requests.
            EndpointError: When it stops answering.
        """
        pictures = list(images) if images is not None else [None] * len(prompts)
        row_seeds = list(seeds) if seeds is not None else [None] * len(prompts)
        rows = list(zip(prompts, pictures, row_seeds, strict=True))

        def answer(place: int, ended: threading.Event) -> str:
            prompt, picture, seed = rows[place]
            return self.answer(
                prompt, picture, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed, ended=ended
            ).text

        answers = dict(pair for group in map_window(answer, range(len(rows)), self.concurrency) for pair in group)
        return [answers[place] for place in range(len(rows))]
