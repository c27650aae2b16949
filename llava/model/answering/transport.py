"""HTTP to one server: with which proxy, certificates and key, and no longer than a limit holds for the whole reply."""

from __future__ import annotations

import asyncio
import email.utils
import errno
import functools
import importlib.util
import json
import os
import re
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import getproxies, proxy_bypass

from llava.errors import InputError, hide_credentials
from llava.model.answering.addresses import Address

if TYPE_CHECKING:
    import httpx

CONNECT_TIMEOUT = 10.0
MOST_BYTES = 64 << 20
"""Size of a reply at most, unpacked; an answer has some kilobytes."""
CERTIFICATE_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""Where the certificates of one's own authority may be named, the first that is set counts."""
SHORTEST_SECRET = 4
"""Characters of a key that is taken out of messages; a shorter one is no key, and stands in every word."""


class NoReplyError(Exception):
    """A request without a reply; the message is one line."""


class LateReplyError(NoReplyError):
    """A reply that did not come, or not to its end, within the limit."""


@dataclass(frozen=True)
class Reply:
    """What came back, whatever its status."""

    status: int
    headers: Mapping[str, str]
    """By names in small letters."""
    text: str


class Transport:
    """Sends requests to one server, from any number of threads.

    Requests run in one event loop in a thread of its own: only there can what is under way be cut off when its time is
    over, also when the server keeps sending something.
    """

    def __init__(self, address: Address, key_variable: str):
        """Prepare; nothing is sent yet.

        Args:
            address: The server.
            key_variable: Environment variable of the key.

        Raises:
            InputError: When key, proxy or certificates in the environment cannot be used.
        """
        import httpx

        key = read_key(key_variable)
        self.secrets = [text for text in (key, *(address.credentials or ())) if text and len(text) >= SHORTEST_SECRET]
        self.loop = start_loop()
        self.http = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            auth=address.credentials,
            # The limit for the whole is kept by `send`; a server that is not there is noticed sooner.
            timeout=httpx.Timeout(None, connect=CONNECT_TIMEOUT),
            # How many requests are under way is the caller's choice; httpx would stop at a hundred.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
            proxy=choose_proxy(address),
            verify=build_ssl_context() if address.scheme == "https" else True,
            trust_env=False,
        )

    def send(self, method: str, url: str, seconds: float, body: Any = None) -> Reply:
        """Send a request and wait for its whole reply.

        Args:
            method: `GET` or `POST`.
            url: Whole address.
            seconds: Time that connecting, waiting and reading may take together.
            body: Sent as JSON; None sends nothing.

        Raises:
            InputError: When the server's certificate is not trusted.
            LateReplyError: When the time is over.
            NoReplyError: When the connection fails or breaks.
        """
        future = asyncio.run_coroutine_threadsafe(self._send(method, url, seconds, body), self.loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    async def _send(self, method: str, url: str, seconds: float, body: Any) -> Reply:
        """Send a request in the loop."""
        import httpx

        try:
            return await asyncio.wait_for(self._exchange(method, url, body), seconds)
        except (asyncio.TimeoutError, TimeoutError):
            raise LateReplyError(f"none within {seconds:g} s") from None
        except (httpx.HTTPError, OSError, UnicodeError) as error:
            self._explain_tls(error)
            raise NoReplyError(self.hide(find_reason(error))) from None

    async def _exchange(self, method: str, url: str, body: Any) -> Reply:
        """Send a request and read its reply."""
        content = None if body is None else json.dumps(body).encode()
        headers = {} if body is None else {"Content-Type": "application/json"}
        async with self.http.stream(method, url, content=content, headers=headers) as answer:
            received = bytearray()
            async for piece in answer.aiter_bytes():
                received += piece
                if len(received) > MOST_BYTES:
                    raise NoReplyError(f"a reply of more than {MOST_BYTES >> 20} MiB")
            names = {name.lower(): value for name, value in answer.headers.items()}
            return Reply(answer.status_code, names, received.decode("utf-8-sig", "replace"))

    def _explain_tls(self, error: BaseException) -> None:
        """Raise what helps when TLS failed for good."""
        for cause in list_causes(error):
            if isinstance(cause, ssl.SSLCertVerificationError):
                raise InputError(
                    f"its certificate is not trusted ({cause.verify_message}); name the file of its authority's "
                    f"certificate in {CERTIFICATE_VARIABLES[0]}"
                ) from None
            if isinstance(cause, ssl.SSLError):
                reason = (cause.reason or "TLS failed").replace("_", " ").lower()
                raise InputError(f"{reason}; a server without TLS has an address with http://") from None

    def hide(self, text: str) -> str:
        """Return a text without key and password, should a server or a library repeat them."""
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return hide_credentials(text)


@functools.cache
def start_loop() -> asyncio.AbstractEventLoop:
    """Return the event loop of all transports; its thread ends with the process."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="endpoint", daemon=True).start()
    return loop


def read_key(variable: str) -> str | None:
    """Return the key in an environment variable, without white space around it; None without one.

    Raises:
        InputError: When no header could hold it; the message does not show it.
    """
    key = os.environ.get(variable, "").strip()
    if key and not all("!" <= letter <= "~" for letter in key):
        raise InputError(
            f"the key in {variable} holds a blank, a line break or a character that no key has; set it anew"
        )
    return key or None


def choose_proxy(address: Address) -> httpx.Proxy | None:
    """Return the proxy that the environment names for a server; this machine is reached without one.

    Raises:
        InputError: When the proxy's address is none, or needs a package that is not installed.
    """
    import httpx

    if address.is_loopback or proxy_bypass(address.authority):
        return None
    proxies = getproxies()
    scheme = next((name for name in (address.scheme, "all") if proxies.get(name)), None)
    if scheme is None:
        return None
    value = proxies[scheme]
    variable = f"{scheme.upper()}_PROXY"
    try:
        proxy = httpx.Proxy(value if "://" in value else f"http://{value}")
    except (ValueError, httpx.InvalidURL):
        raise InputError(
            f"the proxy in {variable} is no address such as http://host:3128 or socks5://host:1080; mend or unset it"
        ) from None
    if proxy.url.scheme.startswith("socks") and importlib.util.find_spec("socksio") is None:
        raise InputError(f"the proxy in {variable} speaks SOCKS; pip install 'httpx[socks]', or unset {variable}")
    return proxy


def build_ssl_context() -> ssl.SSLContext:
    """Return what server certificates are checked against: a file or folder that the environment names, or certifi's.

    Raises:
        InputError: When what is named is not there or holds no certificates.
    """
    import httpx

    for variable in CERTIFICATE_VARIABLES:
        if not (place := os.environ.get(variable)):
            continue
        folder = Path(place).is_dir()
        try:
            return ssl.create_default_context(cafile=None if folder else place, capath=place if folder else None)
        except (OSError, ValueError):  # ssl.SSLError is an OSError
            raise InputError(f"{variable} names {place}, which is no file of certificates; mend or unset it") from None
    return httpx.create_ssl_context(trust_env=False)


def list_causes(error: BaseException) -> list[BaseException]:
    """Return an error and what it came from, outermost first; of a group of them the first counts."""
    causes: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in causes:
        causes.append(current)
        inner = getattr(current, "exceptions", None)
        current = inner[0] if inner else current.__cause__ or current.__context__
    return causes


def find_reason(error: BaseException) -> str:
    """Return why a request failed, as one line: the operating system's words where it has some."""
    for cause in reversed(list_causes(error)):
        if isinstance(cause, OSError) and cause.errno and cause.strerror:
            # Of a failed connection asyncio's own words lack the cause; those of a failed look-up have no number.
            return os.strerror(cause.errno) if cause.errno in errno.errorcode else cause.strerror
    return " ".join(str(error).split()) or type(error).__name__


def read_retry_after(headers: Mapping[str, str]) -> float:
    """Return how many seconds a server asks to wait, 0 when it says nothing that can be read.

    Example:
        >>> read_retry_after({"retry-after": "1.5"}), read_retry_after({"retry-after-ms": "250"})
        (1.5, 0.25)
    """
    number = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
    milliseconds, value = headers.get("retry-after-ms", ""), headers.get("retry-after", "")
    if number.fullmatch(milliseconds):
        return float(milliseconds) / 1000
    if number.fullmatch(value):
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, IndexError, OverflowError):
        return 0.0
