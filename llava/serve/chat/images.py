"""Images of a request: decoded within limits, and fetched from public addresses alone where addresses are allowed."""

from __future__ import annotations

import asyncio
import base64
import binascii
import io
import ipaddress
import re
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from llava.errors import InputError
from llava.serve.chat.messages import ChatRequest, ImagePart
from llava.serve.errors import BROKEN, ApiError
from llava.serve.settings import ServerSettings

if TYPE_CHECKING:
    import httpx
    from PIL.Image import Image

DATA_URI = re.compile(r"data:(?P<type>image/[\w.+-]{1,32})?(?:;[\w.=+-]{1,64})*;base64,", re.IGNORECASE | re.ASCII)
FETCH_SECONDS = 15.0
"""Seconds that an image may take to be fetched, redirects and look-ups included."""
MOST_DECODED = 2
"""Images that are decoded at a time; one of the largest takes 150 MB."""
MOST_REDIRECTS = 3
TUNNELS = tuple(
    ipaddress.ip_network(network) for network in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "::/96")
)
"""IPv6 addresses that stand for IPv4 ones, which may be private."""
SIGNATURES = (
    (b"\x89PNG", "image/png"),
    (b"\xff\xd8", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"RIFF", "image/webp"),
    (b"BM", "image/bmp"),
)
"""How files of each media type begin."""
REDIRECTS = (301, 302, 303, 307, 308)

AddressRule = Callable[[str], bool]
"""Tells whether a connection to an IP address is allowed."""


def is_public(address: str) -> bool:
    """Tell whether an IP address belongs to the public internet, and to one machine of it.

    Example:
        >>> [is_public(address) for address in ("1.1.1.1", "127.0.0.1", "169.254.1.1", "::ffff:10.0.0.1")]
        [True, False, False, False]
    """
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        elif ip.is_site_local or any(ip in network for network in TUNNELS):
            return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)


class ImageReader:
    """Opens the images of requests."""

    def __init__(self, settings: ServerSettings, may_connect: AddressRule = is_public):
        """Take the limits.

        Args:
            settings: Number and size of images, and whether addresses are allowed.
            may_connect: Which IP addresses images are fetched from.
        """
        self.settings = settings
        self.may_connect = may_connect
        self.room = asyncio.Semaphore(MOST_DECODED)

    async def open_all(self, request: ChatRequest, *, keep: bool = True) -> None:
        """Open every image of a request, in place; an address becomes a data URI, so that no upstream fetches it.

        Args:
            request: The request.
            keep: Whether the decoded images are wanted; else each is let go once it is known to be one.

        Raises:
            ApiError: When there are too many, one is none or too large, or may not be fetched.
        """
        images = request.images
        if len(images) > self.settings.max_images:
            raise ApiError(400, f"{len(images)} images, more than the {self.settings.max_images} that are taken")
        for place, part in enumerate(images):
            image = await self._open(part, f"image {place + 1}")
            part.image = image if keep else None

    async def _open(self, part: ImagePart, name: str) -> Image:
        """Open one image."""
        url = part.url
        if url[:5].lower() == "data:":
            data = await asyncio.to_thread(self._read_data_uri, url, name)
        elif not self.settings.image_urls:
            raise ApiError(400, f"{name} is an address, which this server does not fetch; send it as a data URI")
        else:
            data, kind = await self._fetch(url, name)
            part.holder["url"] = f"data:{kind};base64,{base64.b64encode(data).decode()}"
        async with self.room:
            return await asyncio.to_thread(decode, data, name)

    def _read_data_uri(self, url: str, name: str) -> bytes:
        """Return the bytes in a data URI."""
        head = DATA_URI.match(url)
        if head is None:
            raise ApiError(400, f"{name} is no data URI of an image; write data:image/png;base64, and the image")
        most = self.settings.max_image_bytes
        if (len(url) - head.end()) * 3 // 4 > most + 2:
            raise self._too_large(name)
        try:
            data = base64.b64decode(url[head.end() :], validate=True)
        except (binascii.Error, ValueError):
            raise ApiError(400, f"{name} is not valid base64; encode it anew") from None
        if len(data) > most:
            raise self._too_large(name)
        return data

    def _too_large(self, name: str) -> ApiError:
        """Return the error of an image that is too large."""
        return ApiError(400, f"{name} is larger than {self.settings.max_image_bytes / 2**20:g} MiB; scale it down")

    async def _fetch(self, url: str, name: str) -> tuple[bytes, str]:
        """Return the bytes behind an address and their media type."""
        try:
            return await asyncio.wait_for(self._follow(url, name), FETCH_SECONDS)
        except (asyncio.TimeoutError, TimeoutError):
            raise ApiError(400, f"{name} did not arrive within {FETCH_SECONDS:g} s; send it as a data URI") from None

    async def _follow(self, url: str, name: str) -> tuple[bytes, str]:
        """Fetch an image through a few redirects, each checked like the first address."""
        import httpx

        # Neither a proxy nor the environment's certificates: what is checked here must be what is connected to.
        async with httpx.AsyncClient(trust_env=False, follow_redirects=False, timeout=FETCH_SECONDS) as client:
            for _ in range(MOST_REDIRECTS + 1):
                try:
                    found = await self._request(client, url, name)
                except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError, ValueError):
                    # What exactly went wrong would tell a client what this server can reach.
                    raise ApiError(400, f"{name} cannot be fetched; check its address") from None
                if not isinstance(found, str):
                    return found
                url = found
        raise ApiError(400, f"{name} is behind more than {MOST_REDIRECTS} redirects; give its own address")

    async def _request(self, client: httpx.AsyncClient, url: str, name: str) -> tuple[bytes, str] | str:
        """Return an image and its media type, or the address to go on to."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
            raise ApiError(400, f"{name} has no plain http or https address; send it as a data URI")
        port = parts.port or (443 if parts.scheme == "https" else 80)
        address = await self._resolve(parts.hostname, port, name)
        shown = f"[{address}]" if ":" in address else address
        target = f"{parts.scheme}://{shown}:{port}{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
        host = parts.netloc.rpartition("@")[2]
        # The name is looked up once: the connection goes to the address that was checked, whatever the name says then.
        options = {"headers": {"Host": host, "Accept": "image/*"}, "extensions": {"sni_hostname": parts.hostname}}
        async with client.stream("GET", target, **options) as answer:  # type: ignore[arg-type]
            if answer.status_code in REDIRECTS:
                return urljoin(url, answer.headers.get("location", ""))
            if answer.status_code != 200:
                raise ApiError(400, f"{name} cannot be fetched; check its address")
            data = bytearray()
            async for piece in answer.aiter_bytes():
                data += piece
                if len(data) > self.settings.max_image_bytes:
                    raise self._too_large(name)
        return bytes(data), sniff_type(bytes(data))

    async def _resolve(self, host: str, port: int, name: str) -> str:
        """Return the IP address to connect to; every one that the host has must be allowed."""
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise ApiError(400, f"{name} cannot be fetched; check its address") from None
        addresses = [str(entry[4][0]) for entry in found]
        if not addresses or not all(map(self.may_connect, addresses)):
            raise ApiError(400, f"{name} is at an address that is not public; send it as a data URI")
        return addresses[0]


def decode(data: bytes, name: str) -> Image:
    """Decode an image within the package's limits.

    Raises:
        ApiError: When it is none that is taken.
    """
    from llava.data.images import decode_image

    try:
        return decode_image(io.BytesIO(data), name)
    except InputError as error:
        raise ApiError(400, str(error)) from None
    except MemoryError:
        raise ApiError(503, f"{name} does not fit into the memory now", kind=BROKEN) from None


def sniff_type(data: bytes) -> str:
    """Return the media type of an image by its first bytes; a server's word for it could be anything.

    Example:
        >>> sniff_type(b"GIF89a")
        'image/gif'
    """
    return next((kind for start, kind in SIGNATURES if data.startswith(start)), "image/png")
