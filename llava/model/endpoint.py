"""A model behind an OpenAI-compatible server (vLLM, SGLang, transformers serve, a hosted one).

`ChatClient` asks one question at a time and knows when to try again; `EndpointModel` answers batches through it, with
the interface of `MultimodalModel`.
"""

from __future__ import annotations

import base64
import io
import os
import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from llava.errors import InputError

if TYPE_CHECKING:
    import httpx
    from PIL.Image import Image

API_KEY_VARIABLE = "OPENAI_API_KEY"
MAX_TRIES = 6
FIRST_WAIT = 1.0
LONGEST_WAIT = 30.0
TIMEOUT = 600.0
"""Seconds that one answer may take: a busy server queues requests."""
RETRY_STATUS = {408, 409, 425, 429, 500, 502, 503, 504}
SEED_LIMIT = 2**31 - 1
"""Servers keep seeds in a signed 32-bit integer."""


class EndpointError(RuntimeError):
    """A server that stopped answering in the middle of the work."""


class ChatClient:
    """Talks to one model of one server."""

    def __init__(
        self, base_url: str, model: str, *, api_key_variable: str = API_KEY_VARIABLE, first_wait: float = FIRST_WAIT
    ):
        """Prepare a client; nothing is sent yet.

        Args:
            base_url: Address up to and including `/v1`.
            model: Name of the model on the server.
            api_key_variable: Environment variable that holds the key; servers of one's own need none.
            first_wait: Seconds before the second try; each further wait is twice as long.

        Raises:
            InputError: When the address is not one, or httpx is not installed.
        """
        try:
            import httpx
        except ImportError:
            raise InputError("an endpoint needs httpx, which is not installed; pip install httpx") from None
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(f"endpoint {base_url} is no address; give one such as http://127.0.0.1:8000/v1")
        self.base_url = base_url.rstrip("/")
        self.model = model
        self.api_key_variable = api_key_variable
        self.first_wait = first_wait
        key = os.environ.get(api_key_variable)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.http = httpx.Client(headers=headers, timeout=httpx.Timeout(TIMEOUT, connect=10.0))

    def check(self) -> None:
        """Ask the server for its models.

        Raises:
            InputError: When it cannot be reached, refuses the key, or does not have the model.
        """
        import httpx

        try:
            answer = self.http.get(f"{self.base_url}/models")
        except httpx.HTTPError as error:
            raise InputError(f"endpoint {self.base_url} cannot be reached ({_reason(error)}); is it running?") from None
        self._refuse_key(answer)
        if answer.status_code != 200:
            return  # Not every server lists its models; the first question will tell.
        try:
            names = [entry["id"] for entry in answer.json()["data"]]
        except (ValueError, KeyError, TypeError):
            raise InputError(
                f"endpoint {self.base_url} does not speak the OpenAI protocol; check the address"
            ) from None
        if names and self.model not in names:
            known = ", ".join(names[:5])
            raise InputError(f"endpoint {self.base_url} has no model {self.model}; it has {known}")

    def complete(
        self, content: str | list[dict[str, Any]], *, max_tokens: int, temperature: float = 0.0, seed: int | None = None
    ) -> str:
        """Return the model's answer to one user message.

        Connection errors, time-outs and statuses such as 429 and 503 are tried again, each time after twice the wait,
        or after what the server asks for in `Retry-After`.

        Args:
            content: Text, or parts of text and images.
            max_tokens: Longest answer, in tokens.
            temperature: Sampling temperature; 0 is greedy.
            seed: Seed of sampling.

        Returns:
            The text; empty when the server's own filter held it back.

        Raises:
            InputError: When the server refuses the request itself (key, model, size).
            EndpointError: When it does not answer after all tries.
        """
        request: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": max_tokens,
            "temperature": temperature,
        }
        if seed is not None:
            request["seed"] = seed % SEED_LIMIT
        return _read_answer(self._post(request), self.base_url)

    def _post(self, request: dict[str, Any]) -> httpx.Response:
        """Send a request until it is answered or all tries are spent."""
        import httpx

        problem = ""
        for attempt in range(MAX_TRIES):
            wait = min(LONGEST_WAIT, self.first_wait * 2**attempt)
            try:
                answer = self.http.post(f"{self.base_url}/chat/completions", json=request)
            except httpx.TransportError as error:
                problem = _reason(error)
            else:
                if answer.status_code == 200:
                    return answer
                self._refuse_key(answer)
                problem = f"status {answer.status_code}: {_message(answer)}"
                if answer.status_code not in RETRY_STATUS:
                    raise InputError(f"endpoint {self.base_url} refused the request ({problem}); check --model")
                wait = max(wait, _retry_after(answer))
            if attempt + 1 < MAX_TRIES:
                # Clients that were turned away together must not come back together.
                time.sleep(wait * random.uniform(0.75, 1.25))
        raise EndpointError(f"endpoint {self.base_url} gave no answer in {MAX_TRIES} tries ({problem})")

    def _refuse_key(self, answer: httpx.Response) -> None:
        """Raise when the server does not accept the key."""
        if answer.status_code in (401, 403):
            raise InputError(
                f"endpoint {self.base_url} refuses access (status {answer.status_code}); set {self.api_key_variable}"
            )


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

    def generate(
        self,
        prompts: Sequence[str],
        images: Sequence[Image | None] | None = None,
        *,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        seeds: Sequence[int] | None = None,
    ) -> list[str]:
        """Answer each prompt; see `MultimodalModel.generate` for the arguments.

        Raises:
            InputError: When the server refuses a request.
            EndpointError: When it stops answering.
        """
        pictures = list(images) if images is not None else [None] * len(prompts)
        row_seeds = list(seeds) if seeds is not None else [None] * len(prompts)

        def answer(row: tuple[str, Image | None, int | None]) -> str:
            prompt, picture, seed = row
            content = prompt if picture is None else build_content(prompt, picture)
            return self.client.complete(content, max_tokens=max_new_tokens, temperature=temperature, seed=seed)

        with ThreadPoolExecutor(self.concurrency) as pool:
            futures = [pool.submit(answer, row) for row in zip(prompts, pictures, row_seeds, strict=True)]
            try:
                return [future.result() for future in futures]
            except BaseException:
                # What is not sent yet need not be: the batch is lost.
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def build_content(prompt: str, image: Image) -> list[dict[str, Any]]:
    """Return a message of an image and a text, the image as a lossless data URL."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    url = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    return [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": prompt}]


def _read_answer(answer: httpx.Response, base_url: str) -> str:
    """Return the text of a completion, without halves of surrogate pairs, which no file could hold."""
    try:
        choice = answer.json()["choices"][0]
        content = choice["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError):
        raise InputError(f"endpoint {base_url} does not speak the OpenAI protocol; check the address") from None
    return str(content or "").encode("utf-8", "replace").decode().strip()


def _retry_after(answer: httpx.Response) -> float:
    """Return how many seconds the server asks to wait, within reason."""
    value = answer.headers.get("retry-after", "")
    return min(LONGEST_WAIT, float(value)) if value.replace(".", "", 1).isdigit() else 0.0


def _message(answer: httpx.Response) -> str:
    """Return what the server says about an error, as one short line."""
    try:
        body = answer.json()
        text = body.get("error", body) if isinstance(body, dict) else body
        text = text.get("message", text) if isinstance(text, dict) else text
    except ValueError:
        text = answer.text
    return " ".join(str(text).split())[:200]


def _reason(error: Exception) -> str:
    """Return an error as one line; some of httpx's have no message."""
    return " ".join(str(error).split()) or type(error).__name__
