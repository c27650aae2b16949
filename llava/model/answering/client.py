"""Asks an OpenAI-compatible server (vLLM, SGLang, transformers serve, a hosted one), one message at a time.

The client knows when to try again, and whether a refusal is about the message or about the whole work.
"""

from __future__ import annotations

import base64
import io
import os
import random
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from llava.errors import FailedRunError, InputError

if TYPE_CHECKING:
    import httpx
    from PIL.Image import Image

API_KEY_VARIABLE = "OPENAI_API_KEY"
MAX_TRIES = 6
FIRST_WAIT = 1.0
LONGEST_WAIT = 30.0
MAX_TIMEOUTS = 2
"""Tries that may end without an answer in time; a server that hangs would else hold the work for hours."""
TIMEOUT = 600.0
"""Seconds that one answer may take: a busy server queues requests."""
CONNECT_TIMEOUT = 10.0
CHECK_TIMEOUT = 60.0
"""A list of models needs no computing."""
REFUSED_STATUS = {400, 413, 422}
"""The server turns down this very request: its filter, its limits, or a parameter that it does not know."""
RETRY_STATUS = {408, 409, 425, 429, 500, 502, 503, 504}
SEED_LIMIT = 2**31 - 1
"""Servers keep seeds in a signed 32-bit integer."""
PROBE = "Reply with OK."
PROBE_SIZE = (64, 64)


class EndpointError(FailedRunError):
    """A server that stopped answering in the middle of the work."""


class RefusedRequestError(InputError):
    """A server that turned down one request; whether it would answer another is open."""


@dataclass(frozen=True)
class Answer:
    """What a server made of one question."""

    text: str
    """The model's words; empty when there are none."""
    refusal: str | None = None
    """Why the server turned the question down, as one line; None when it let the model answer."""


class ChatClient:
    """Talks to one model of one server."""

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key_variable: str = API_KEY_VARIABLE,
        first_wait: float = FIRST_WAIT,
        timeout: float = TIMEOUT,
    ):
        """Prepare a client; nothing is sent yet.

        Args:
            base_url: Address up to and including `/v1`.
            model: Name of the model on the server.
            api_key_variable: Environment variable that holds the key; servers of one's own need none.
            first_wait: Seconds before the second try; each further wait is twice as long.
            timeout: Seconds that one answer may take.

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
        self.timeout = timeout
        self.http = httpx.Client(
            headers=headers,
            timeout=httpx.Timeout(timeout, connect=min(timeout, CONNECT_TIMEOUT), pool=None),
            # How many requests are under way is the caller's choice; httpx would stop at a hundred.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
        )
        self.answered_kinds: set[bool] = set()
        self.probing = threading.Lock()

    def check(self) -> None:
        """Ask the server for its models.

        Raises:
            InputError: When it cannot be reached, refuses the key, or does not have the model.
        """
        import httpx

        try:
            answer = self.http.get(f"{self.base_url}/models", timeout=min(self.timeout, CHECK_TIMEOUT))
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

    def ask(self, content: str | list[dict[str, Any]], **options: Any) -> Answer:
        """Return the answer to one user message, or that the server turned this message down.

        A server that has answered before and turns one request down means that request (hosted servers filter what
        they are asked). Before the first answer it may as well mean all of them: a wrong parameter, a model that takes
        no pictures. Then a harmless request of the same kind and with the same options tells.

        Args:
            content: Text, or parts of text and images.
            options: See `complete`.

        Raises:
            InputError: When the server does not take such requests at all.
            EndpointError: When it does not answer after all tries.
        """
        with_image = not isinstance(content, str)
        try:
            answer = Answer(self.complete(content, **options))
        except RefusedRequestError as error:
            with self.probing:
                if with_image not in self.answered_kinds:
                    self._probe(with_image, **options)
            answer = Answer("", str(error))
        self.answered_kinds.add(with_image)
        return answer

    def _probe(self, with_image: bool, **options: Any) -> None:
        """Raise unless the server answers a harmless question."""
        content: str | list[dict[str, Any]] = PROBE
        if with_image:
            from PIL import Image

            content = build_content(PROBE, Image.new("RGB", PROBE_SIZE, "white"))
        try:
            self.complete(content, **options)
        except RefusedRequestError as error:
            kind = "with a picture " if with_image else ""
            raise InputError(f"{error}, and so it did a harmless one {kind}with the same options") from None

    def complete(
        self,
        content: str | list[dict[str, Any]],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        seed: int | None = None,
        ended: threading.Event | None = None,
    ) -> str:
        """Return the model's answer to one user message.

        Connection errors, time-outs and statuses such as 429 and 503 are tried again, each time after twice the wait,
        or after what the server asks for in `Retry-After`.

        Args:
            content: Text, or parts of text and images.
            max_tokens: Longest answer, in tokens.
            temperature: Sampling temperature; 0 is greedy.
            seed: Seed of sampling.
            ended: Set when the work as a whole has failed: what is under way is waited for, but not tried again.

        Returns:
            The text; empty when the server's own filter held it back.

        Raises:
            InputError: When the server refuses the work (key, model).
            RefusedRequestError: When it refuses this request.
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
        return _read_answer(self._post(request, ended or threading.Event()), self.base_url)

    def _post(self, request: dict[str, Any], ended: threading.Event) -> httpx.Response:
        """Send a request until it is answered, all tries are spent or the work has ended."""
        import httpx

        problem, timeouts = "", 0
        for attempt in range(MAX_TRIES):
            wait = min(LONGEST_WAIT, self.first_wait * 2**attempt)
            try:
                answer = self.http.post(f"{self.base_url}/chat/completions", json=request)
            except httpx.ReadTimeout:
                timeouts += 1
                problem = f"none within {self.timeout:g} s; see --request-timeout"
            except httpx.TransportError as error:
                problem = _reason(error)
            else:
                if answer.status_code == 200:
                    return answer
                self._refuse_key(answer)
                problem = f"status {answer.status_code}: {_message(answer)}"
                if answer.status_code in REFUSED_STATUS:
                    raise RefusedRequestError(f"endpoint {self.base_url} refused the request ({problem})")
                if answer.status_code not in RETRY_STATUS:
                    raise InputError(f"endpoint {self.base_url} refused the request ({problem}); check --model")
                wait = max(wait, _retry_after(answer))
            if attempt + 1 == MAX_TRIES or timeouts == MAX_TIMEOUTS:
                break
            # Clients that were turned away together must not come back together.
            if ended.wait(wait * random.uniform(0.75, 1.25)):
                break
        tries = "1 try" if attempt == 0 else f"{attempt + 1} tries"
        raise EndpointError(f"endpoint {self.base_url} gave no answer in {tries} ({problem})")

    def _refuse_key(self, answer: httpx.Response) -> None:
        """Raise when the server does not accept the key."""
        if answer.status_code in (401, 403):
            raise InputError(
                f"endpoint {self.base_url} refuses access (status {answer.status_code}); set {self.api_key_variable}"
            )


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
