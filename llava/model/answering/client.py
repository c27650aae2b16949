"""Asks an OpenAI-compatible server (vLLM, SGLang, transformers serve, a hosted one), one message at a time.

The client knows when to try again, and whether a refusal is about the message or about the whole work.
"""

from __future__ import annotations

import base64
import io
import logging
import random
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llava.errors import FailedRunError, InputError
from llava.fields import Fields
from llava.files import parse_json
from llava.model.answering.addresses import parse_address
from llava.model.answering.dialects import Dialect, same_model
from llava.model.answering.replies import ACCESS_STATUS, MOST_KINDS, Answer, Failure, read_answer, read_failure
from llava.model.answering.transport import LateReplyError, NoReplyError, Reply, Transport, read_retry_after

if TYPE_CHECKING:
    from PIL.Image import Image

API_KEY_VARIABLE = "OPENAI_API_KEY"
MAX_TRIES = 6
FIRST_WAIT = 1.0
LONGEST_WAIT = 30.0
LONGEST_ASKED_WAIT = 300.0
"""Seconds that a server may ask to wait (`Retry-After`); for more the work is better taken up again later."""
MOST_JITTER = 0.25
"""Part of a wait that chance adds: clients that were turned away together must not come back together."""
MAX_TIMEOUTS = 2
"""Tries that may end without an answer in time; a server that hangs would else hold the work for hours."""
TIMEOUT = 600.0
"""Seconds that one answer may take: a busy server queues requests."""
CHECK_TIMEOUT = 60.0
"""A list of models needs no computing."""
SEED_LIMIT = 2**31 - 1
"""Servers keep seeds in a signed 32-bit integer."""
PROBE = "Reply with OK."
PROBE_SIZE = (64, 64)

logger = logging.getLogger(__name__)


class EndpointError(FailedRunError):
    """A server that stopped answering in the middle of the work."""


class RefusedRequestError(InputError):
    """A server that turned down one request; whether it would answer another is open."""

    def __init__(self, message: str, words: str = ""):
        """Keep the server's own words, uncut."""
        super().__init__(message)
        self.words = words


class ChatClient:
    """Talks to one model of one server.

    Attributes:
        base_url: The server's address, without user information and keys.
        notes: Sentences about how the server answered that a reader of results must know.
    """

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
            base_url: Address up to and including `/v1`; user and password in it become a header.
            model: Name of the model on the server.
            api_key_variable: Environment variable that holds the key; servers of one's own need none.
            first_wait: Seconds before the second try; each further wait is twice as long.
            timeout: Seconds that one answer may take, from its first byte to its last.

        Raises:
            InputError: When the address is not one, httpx is not installed, or key, proxy or certificates in the
                environment cannot be used.
        """
        try:
            import httpx  # noqa: F401
        except ImportError:
            raise InputError("an endpoint needs httpx, which is not installed; pip install httpx") from None
        self.address = parse_address(base_url)
        self.base_url = str(self.address)
        self.model = model
        self.api_key_variable = api_key_variable
        self.first_wait = first_wait
        self.timeout = timeout
        self.transport = Transport(self.address, api_key_variable)
        self.dialect = Dialect()
        self.notes: list[str] = []
        self.noting = threading.Lock()
        self.answered_kinds: set[bool] = set()
        self.probing = threading.Lock()

    def check(self) -> None:
        """Ask the server for its models.

        Raises:
            InputError: When it cannot be reached, refuses the key, or does not have the model.
        """
        try:
            reply = self._send("GET", "models", min(self.timeout, CHECK_TIMEOUT))
        except NoReplyError as error:
            raise InputError(f"endpoint {self.base_url} cannot be reached ({error}); is it running?") from None
        if reply.status != 200:
            self._refuse_access(read_failure(reply.status, reply.text))
            return  # Not every server lists its models; the first question will tell.
        where = f"endpoint {self.base_url} does not speak the OpenAI protocol: its list of models"
        body = Fields(parse_json(reply.text, where, "check the address"), where, "check the address")
        names = [Fields(entry, where, "check the address").text("id") for entry in body.items("data")]
        if names and not any(same_model(self.model, name) for name in names):
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
            answer = self.complete(content, **options)
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
    ) -> Answer:
        """Return the model's answer to one user message.

        Connection errors, time-outs and statuses such as 429 and 503 are tried again, each time after twice the wait,
        or after what the server asks for in `Retry-After`. A parameter that the server does not take is renamed or
        left out, which becomes a note.

        Args:
            content: Text, or parts of text and images.
            max_tokens: Longest answer, in tokens.
            temperature: Sampling temperature; 0 is greedy.
            seed: Seed of sampling.
            ended: Set when the work as a whole has failed: what is under way is waited for, but not tried again.

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
        dialect, first = self.dialect, None
        while True:
            try:
                answer = self._post(dialect.render(request), ended or threading.Event())
            except RefusedRequestError as error:
                first = first or error
                adapted = dialect.adapt(error.words)
                if adapted is None:
                    # The words may have been about the question after all.
                    raise first from None
                dialect = adapted
            else:
                self._note(dialect, answer)
                return answer

    def _note(self, dialect: Dialect, answer: Answer) -> None:
        """Keep what this answer has shown about the server."""
        found = [f"endpoint {self.base_url} takes no {name}; it was left out" for name in sorted(dialect.left_out)]
        if answer.unread:
            kinds = ", ".join(answer.unread[:MOST_KINDS])
            found.append(f"answers of endpoint {self.base_url} had parts of the type {kinds}, which are not read")
        with self.noting:
            self.dialect = dialect
            for note in found:
                if note not in self.notes:
                    self.notes.append(note)
                    logger.warning(note)

    def _send(self, method: str, name: str, seconds: float, body: Any = None) -> Reply:
        """Send one request; what ends the work names the endpoint."""
        try:
            return self.transport.send(method, self.address.join(name), seconds, body)
        except InputError as error:
            raise InputError(f"endpoint {self.base_url} cannot be used: {error}") from None

    def _post(self, request: dict[str, Any], ended: threading.Event) -> Answer:
        """Send a request until it is answered, all tries are spent or the work has ended."""
        problem, timeouts = "", 0
        for attempt in range(MAX_TRIES):
            wait = min(LONGEST_WAIT, self.first_wait * 2**attempt)
            try:
                reply = self._send("POST", "chat/completions", self.timeout, request)
            except LateReplyError as error:
                timeouts += 1
                problem = f"{error}; see --request-timeout"
            except NoReplyError as error:
                problem = str(error)
            else:
                found = self._read(reply)
                if isinstance(found, Answer):
                    return found
                problem, asked = str(found), read_retry_after(reply.headers)
                if asked > LONGEST_ASKED_WAIT:
                    raise EndpointError(f"endpoint {self.base_url} asks to come back in {asked:,.0f} s ({problem})")
                wait = max(wait, asked)
            if attempt + 1 == MAX_TRIES or timeouts == MAX_TIMEOUTS:
                break
            if ended.wait(wait * random.uniform(1, 1 + MOST_JITTER)):
                break
        tries = "1 try" if attempt == 0 else f"{attempt + 1} tries"
        raise EndpointError(f"endpoint {self.base_url} gave no answer in {tries} ({problem})")

    def _read(self, reply: Reply) -> Answer | Failure:
        """Return an answer, or a failure that another try may mend; raise for any other."""
        ok = reply.status == 200
        found = read_answer(reply.text, self.base_url) if ok else read_failure(reply.status, reply.text)
        if isinstance(found, Answer):
            return replace(found, refusal=self.transport.hide(found.refusal)) if found.refusal else found
        found = replace(found, words=self.transport.hide(found.words))
        self._refuse_access(found)
        if found.refused:
            raise RefusedRequestError(f"endpoint {self.base_url} refused the request ({found})", found.words)
        if not found.busy:
            remedy = "check --model, or the address, which ends in /v1 with most servers"
            if 300 <= reply.status < 400:
                remedy = (
                    f"it sends to {self.transport.hide(reply.headers.get('location', 'nowhere'))}; give that address"
                )
            raise InputError(f"endpoint {self.base_url} refused the request ({found}); {remedy}")
        return found

    def _refuse_access(self, failure: Failure) -> None:
        """Raise when the server does not accept the key."""
        if failure.status in ACCESS_STATUS:
            raise InputError(
                f"endpoint {self.base_url} refuses access (status {failure.status}); set {self.api_key_variable}"
            )


def build_content(prompt: str, image: Image) -> list[dict[str, Any]]:
    """Return a message of an image and a text, the image as a lossless data URL."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    url = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    return [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": prompt}]
