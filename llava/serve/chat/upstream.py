"""A model behind another OpenAI-compatible server: requests go on to it, and its faults become clean errors."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llava.errors import InputError, hide_credentials
from llava.fields import Fields
from llava.files import parse_json
from llava.model.answering.addresses import Address, parse_address
from llava.model.answering.replies import ACCESS_STATUS
from llava.model.answering.transport import CONNECT_TIMEOUT, build_ssl_context, choose_proxy, find_reason
from llava.serve.chat.messages import ChatRequest
from llava.serve.chat.sse import DONE, EventParser, LongEventError
from llava.serve.errors import BROKEN, BUSY, INVALID, ApiError

if TYPE_CHECKING:
    import httpx

MOST_BYTES = 64 << 20
"""Size of a whole answer at most."""
MOST_ERROR_BYTES = 64 << 10
"""Size of an error that is read for its words."""
BUSY_STATUS = (408, 409, 425, 429, 503)
"""The upstream may take the same request later."""
LEAVE_SECONDS = 1.0
"""How long the end of a body is waited for behind the end mark."""
SURROGATE = "\\ud"
"""How JSON spells half of a character beyond the basic plane."""
PLAIN_NAME = re.compile(r"[\w.\[\]-]{1,64}", re.ASCII)
DEFAULT_PATH = "/v1"


class Upstream:
    """Asks an OpenAI-compatible server; a `Backend`.

    The client's headers stay here: its key is for this server, and the upstream gets the operator's own. Nothing is
    sent twice: whether a request is to be repeated its client knows best.
    """

    sees_images = False

    def __init__(self, url: str, key: str | None = None, *, seconds: float = 600.0):
        """Prepare; nothing is sent yet.

        Args:
            url: Address of the upstream, up to and including `/v1`, which is added where there is no path at all.
            key: Its key; None sends none.
            seconds: Time that an answer may take; of a stream, the longest pause between two pieces.

        Raises:
            InputError: When the address is none, or the proxy or certificates in the environment cannot be used.
        """
        import httpx

        address = parse_address(url)
        self.address: Address = address if address.path else replace(address, path=DEFAULT_PATH)
        self.name = str(self.address)
        self.seconds = seconds
        self._secrets = [text for text in (key, *(address.credentials or ())) if text]
        self._http = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            auth=address.credentials,
            timeout=httpx.Timeout(seconds, connect=CONNECT_TIMEOUT),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=32),
            proxy=choose_proxy(address),
            verify=build_ssl_context() if address.scheme == "https" else True,
            trust_env=False,
        )

    async def start(self) -> None:
        """Do nothing: an upstream may come up later than its guard."""

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def list_models(self) -> list[str]:
        """Return the names of the upstream's models.

        Raises:
            ApiError: When it cannot be reached or says something else.
        """
        body = await self._exchange("GET", "models", None)
        try:
            fields = Fields(body, "the upstream's list of models")
            return [Fields(entry, fields.where).text("id") for entry in fields.items("data")]
        except InputError as error:
            raise self._broken(str(error)) from None

    async def complete(self, request: ChatRequest) -> dict[str, Any]:
        """Return a whole answer.

        Raises:
            ApiError: When the upstream refuses the request, cannot be reached, or answers something else.
        """
        body = {key: value for key, value in request.body.items() if key not in ("stream", "stream_options")}
        return await self._exchange("POST", "chat/completions", body)

    async def open_stream(self, request: ChatRequest) -> UpstreamStream:
        """Begin an answer in pieces.

        Raises:
            ApiError: When the upstream refuses the request or cannot be reached.
        """
        # Usage is asked for whether the client wants it or not: what was spent goes into the figures.
        options = {**(request.body.get("stream_options") or {}), "include_usage": True}
        body = {**request.body, "stream": True, "stream_options": options}
        answer = await self._send("POST", "chat/completions", body)
        kind = answer.headers.get("content-type", "")
        if "text/event-stream" not in kind:
            await answer.aclose()
            raise self._broken(f"its stream is of type {kind or 'unknown'} instead of text/event-stream")
        return UpstreamStream(self, answer)

    async def _exchange(self, method: str, door: str, body: Any) -> dict[str, Any]:
        """Send a request and return the object in its answer."""
        try:
            answer = await asyncio.wait_for(self._send(method, door, body), self.seconds)
            text = await asyncio.wait_for(self._read(answer, MOST_BYTES), self.seconds)
        except (asyncio.TimeoutError, TimeoutError):
            raise ApiError(504, f"no answer from the upstream within {self.seconds:g} s", kind=BROKEN) from None
        return self.parse(text)

    async def _send(self, method: str, door: str, body: Any) -> httpx.Response:
        """Send a request and return its answer, whose body is still to be read."""
        import httpx

        # With images a request has megabytes, which other requests need not wait for.
        content = None if body is None else await asyncio.to_thread(render_json, body)
        headers = {} if body is None else {"Content-Type": "application/json"}
        try:
            request = self._http.build_request(method, self.address.join(door), content=content, headers=headers)
            answer = await self._http.send(request, stream=True)
        except httpx.TimeoutException:
            raise ApiError(504, f"no answer from the upstream within {self.seconds:g} s", kind=BROKEN) from None
        except (httpx.HTTPError, OSError) as error:
            raise self.explain(error) from None
        if answer.status_code != 200:
            raise await self._read_refusal(answer)
        return answer

    async def _read(self, answer: httpx.Response, most: int) -> str:
        """Read a body and close the answer."""
        import httpx

        received = bytearray()
        try:
            async for piece in answer.aiter_bytes():
                received += piece
                if len(received) > most:
                    raise self._broken(f"its answer has more than {most >> 10} KiB")
        except (httpx.HTTPError, httpx.StreamError, OSError) as error:
            raise self.explain(error) from None
        finally:
            await answer.aclose()
        return received.decode("utf-8-sig", "replace")

    async def _read_refusal(self, answer: httpx.Response) -> ApiError:
        """Return an answer that is none as an error: its 4xx are the client's to mend, all others the upstream's."""
        status = answer.status_code
        try:
            error = find_error(parse_json(await self._read(answer, MOST_ERROR_BYTES), "error"))
        except (ApiError, InputError):
            error = {}
        words = self._hide(str(error.get("message") or f"status {status}"))
        if status in ACCESS_STATUS:
            return ApiError(
                502, "the upstream does not accept this server's key; its operator must set it", kind=BROKEN
            )
        after = answer.headers.get("retry-after", "")
        headers = {"Retry-After": after} if status in BUSY_STATUS and after.isascii() and after.isprintable() else {}
        if 400 <= status < 500 or status == 503:
            fallback = BUSY if status == 429 else BROKEN if status == 503 else INVALID
            named = {name: str(value) for name in ("type", "param", "code") if is_plain(value := error.get(name))}
            return ApiError(status, words, kind=named.pop("type", fallback), headers=headers, **named)
        return self._broken(words)

    def parse(self, text: str, *, halves: bool = False) -> dict[str, Any]:
        """Return the object that the upstream sent.

        Args:
            text: JSON.
            halves: Whether half surrogate pairs stay: a character may be cut in two by the end of a piece.

        Raises:
            ApiError: When it is none, or an error.
        """
        try:
            body = json.loads(text) if halves and SURROGATE in text.lower() else parse_json(text, "its answer", "")
        except (ValueError, RecursionError):  # InputError is a ValueError
            raise self._broken("its answer is not valid JSON") from None
        if not isinstance(body, dict):
            raise self._broken("its answer is no object")
        if body.get("error"):
            raise self._broken(str(find_error(body).get("message") or "an error without words"))
        return body

    def explain(self, error: Exception) -> ApiError:
        """Return a broken connection as an error."""
        return self._broken(f"{find_reason(error)}; is it running?")

    def _broken(self, reason: str) -> ApiError:
        """Return the error of an upstream that does not do what it should."""
        return ApiError(502, f"the upstream failed: {self._hide(reason)}", kind=BROKEN, code="upstream_error")

    def _hide(self, text: str) -> str:
        """Return a text without this server's key, should the upstream repeat it."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return hide_credentials(text)


class UpstreamStream:
    """The chunks of an upstream's answer; a `ChunkStream`."""

    def __init__(self, upstream: Upstream, answer: httpx.Response):
        """Take an answer whose body is still to be read."""
        self._upstream = upstream
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
        """Give the chunks up to the end mark.

        Raises:
            ApiError: When the connection breaks, the stream ends without its mark, or holds something else.
        """
        import httpx

        parser, pieces = EventParser(), self._answer.aiter_bytes()
        try:
            async for piece in pieces:
                for data in parser.feed(piece):
                    if data.strip() == DONE:
                        await read_out(pieces)
                        return
                    yield self._upstream.parse(data, halves=True)
            for data in parser.finish():
                if data.strip() == DONE:
                    return
                yield self._upstream.parse(data, halves=True)
        except LongEventError as error:
            raise self._upstream.explain(error) from None
        except (httpx.HTTPError, httpx.StreamError, OSError) as error:
            raise self._upstream.explain(error) from None
        finally:
            await self._answer.aclose()
        raise self._upstream.explain(EOFError("its stream ended without [DONE]"))

    def drop(self, index: int) -> None:
        """Do nothing: the protocol cannot end one choice of several."""

    async def aclose(self) -> None:
        """Close the connection, by which the upstream knows that nobody listens any more."""
        await self._answer.aclose()


async def read_out(pieces: AsyncIterator[bytes]) -> None:
    """Read what is left of a body behind its end mark, as a rule nothing: its connection can be used again then."""
    import httpx

    async def read() -> None:
        async for _ in pieces:
            pass

    # The answer is whole: what breaks behind it breaks nothing.
    with contextlib.suppress(asyncio.TimeoutError, TimeoutError, httpx.HTTPError, httpx.StreamError, OSError):
        await asyncio.wait_for(read(), LEAVE_SECONDS)


def render_json(body: Any) -> bytes:
    """Return a body as it is sent."""
    return json.dumps(body).encode()


def is_plain(value: Any) -> bool:
    """Tell whether a value is a short name, as the fields of an error have them."""
    return isinstance(value, str) and PLAIN_NAME.fullmatch(value) is not None


def find_error(body: Any) -> dict[str, Any]:
    """Return the error object of an answer in whichever of its usual forms it comes.

    Example:
        >>> find_error({"error": {"message": "no"}}), find_error({"error": "no"}), find_error({"detail": "no"})
        ({'message': 'no'}, {'message': 'no'}, {'detail': 'no', 'message': 'no'})
    """
    inner = body.get("error", body) if isinstance(body, dict) else body
    if isinstance(inner, dict):
        words = next((inner[name] for name in ("message", "detail", "msg") if isinstance(inner.get(name), str)), None)
        return {**inner, "message": words}
    return {"message": inner if isinstance(inner, str) else None}
