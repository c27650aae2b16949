"""The one parser of endpoint addresses: what is asked, and what may be stored and printed of it."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

from llava.errors import InputError

EXAMPLE = "http://127.0.0.1:8000/v1"
QUESTION_PATH = "/chat/completions"
HIDDEN = "***"
SECRET_NAME = re.compile(r"key|token|secret|pass|pwd|sig|auth|code|credential", re.IGNORECASE)
"""Names of query parameters whose values are never stored or printed."""
JUDGE_ADDRESS = re.compile(r"@(?=https?://)", re.IGNORECASE)
"""What parts a model's name, which may hold `@` itself, from an address."""


@dataclass(frozen=True)
class Address:
    """Where a server is.

    Example:
        >>> address = parse_address("http://me:secret@host:8000/v1/?api-version=2&key=k")
        >>> str(address), address.join("models")
        ('http://host:8000/v1?api-version=2&key=***', 'http://host:8000/v1/models?api-version=2&key=k')
    """

    scheme: str
    """`http` or `https`."""
    host: str
    """Name or number, without the brackets of IPv6."""
    port: int | None
    """None for the scheme's own."""
    path: str
    """Up to and including `/v1`, without a slash at its end."""
    query: str = field(default="", repr=False)
    """What every request gets after its `?`."""
    credentials: tuple[str, str] | None = field(default=None, repr=False)
    """User and password; they go into a header and nowhere else."""

    def __str__(self) -> str:
        """Return the form that may be stored and printed: no user information, no keys in the query."""
        pairs = parse_qsl(self.query, keep_blank_values=True)
        if any(SECRET_NAME.search(name) for name, _ in pairs):
            shown = [(name, HIDDEN if SECRET_NAME.search(name) else value) for name, value in pairs]
            return self._build(urlencode(shown, safe="*"))
        return self._build(self.query)

    def join(self, name: str) -> str:
        """Return the address of one of the server's doors (`models`), the query at its end."""
        return self._build(self.query, f"/{name}")

    def _build(self, query: str, more: str = "") -> str:
        return f"{self.scheme}://{self.authority}{self.path}{more}{'?' if query else ''}{query}"

    @property
    def authority(self) -> str:
        """Host and port as they stand in an address."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether the server is this machine, which no proxy could reach."""
        if self.host == "localhost" or self.host.endswith(".localhost"):
            return True
        try:
            return ipaddress.ip_address(self.host.partition("%")[0]).is_loopback
        except ValueError:
            return False


def parse_address(text: str) -> Address:
    """Read the address of an OpenAI-compatible server.

    Args:
        text: Address up to and including `/v1`; user information and a query are understood, and a `/chat/completions`
            at its end is left out.

    Raises:
        InputError: When it is none; the message has no user information.
    """
    import httpx

    try:
        parts = urlsplit(text.strip())
        if any(letter.isspace() or not letter.isprintable() for letter in text.strip()):
            raise ValueError(text)
        port = parts.port
        host = parts.hostname or ""
        if parts.scheme not in ("http", "https") or not host or parts.fragment or port == 0:
            raise ValueError(text)
        address = Address(
            parts.scheme,
            host,
            port,
            parts.path.rstrip("/").removesuffix(QUESTION_PATH).rstrip("/"),
            parts.query,
            _read_credentials(parts),
        )
        # A host in Punycode is decoded only when httpx is asked for it, which a request does too late to be explained.
        known = httpx.URL(address.join("models")).host
        # As a look-up of the name would do it; labels that are empty or too long are none.
        if ":" not in host:
            host.encode("idna")
        if not known:
            raise ValueError(text)
        return address
    except (ValueError, httpx.InvalidURL):
        # Whatever stands before an @ may be a password, however odd the rest is.
        scheme, mark, rest = text.rpartition("://") if "://" in text else ("", "", text)
        shown = scheme.partition("://")[0] + mark + rest.rpartition("@")[2] if "@" in text else text
        raise InputError(f"endpoint {shown} is no address; give one such as {EXAMPLE}") from None


def _read_credentials(parts: SplitResult) -> tuple[str, str] | None:
    """Return user and password; None where neither is given."""
    if not parts.username and not parts.password:
        return None
    return unquote(parts.username or ""), unquote(parts.password or "")


def split_model(argument: str) -> tuple[str, str | None]:
    """Split `MODEL` or `MODEL@URL`; a model's name may hold `@` itself.

    Raises:
        InputError: When what follows an `@` looks like an address that lacks its scheme.

    Example:
        >>> split_model("a@b@http://127.0.0.1:8000/v1"), split_model("claude@20250101")
        (('a@b', 'http://127.0.0.1:8000/v1'), ('claude@20250101', None))
    """
    split = JUDGE_ADDRESS.search(argument)
    if split is not None:
        return argument[: split.start()], argument[split.end() :]
    model, at, rest = argument.rpartition("@")
    if at and model and (re.search(r"[:/]", rest) or rest.lower() == "localhost"):
        raise InputError(f"endpoint {rest} is no address; give one such as {EXAMPLE}")
    return argument, None
