"""From options to a server that runs until it is told to stop."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from llava.errors import InputError
from llava.files import describe_os_error, read_text
from llava.serve.settings import ServerSettings

KEYS_VARIABLE = "MLLM_PROTECTOR_API_KEYS"
"""Environment variable of the keys that clients may show, separated by commas."""
UPSTREAM_VARIABLE = "MLLM_PROTECTOR_UPSTREAM_KEY"
"""Environment variable of the key for the upstream; a client's key never goes there."""
BACKLOG = 2048
LARGEST_HEAD = 64 << 10
"""Bytes of a request's line and headers."""
KEEP_ALIVE_SECONDS = 30


def read_api_keys(file: Path | None) -> tuple[str, ...]:
    """Return the keys that clients may show: those of a file, one a line, and those of the environment.

    Raises:
        InputError: When the file cannot be read, or holds no key.
    """
    keys = [key.strip() for key in os.environ.get(KEYS_VARIABLE, "").split(",")]
    if file is not None:
        lines = [line.strip() for line in read_text(file, "--api-key-file").splitlines()]
        found = [line for line in lines if line and not line.startswith("#")]
        if not found:
            raise InputError(f"--api-key-file {file} holds no key; write one a line")
        keys += found
    return tuple(dict.fromkeys(key for key in keys if key))


def parse_pairs(items: Sequence[str], name: str) -> dict[str, str]:
    """Return `NAME=VALUE` items as a mapping.

    Raises:
        InputError: When one is no pair, or a name stands there twice.

    Example:
        >>> parse_pairs(["/classify=0.3", "org/model=0.5"], "--threshold-for")
        {'/classify': '0.3', 'org/model': '0.5'}
    """
    pairs: dict[str, str] = {}
    for item in items:
        key, mark, value = item.rpartition("=")
        if not mark or not key.strip() or not value.strip():
            raise InputError(f"{name} {item} is no ROUTE=VALUE or MODEL=VALUE; write such as /classify=VALUE")
        if key.strip() in pairs:
            raise InputError(f"{name} names {key.strip()} twice; give it once")
        pairs[key.strip()] = value.strip()
    return pairs


def parse_thresholds(items: Sequence[str]) -> dict[str, float]:
    """Return thresholds by route or model; the settings check their range.

    Raises:
        InputError: When one is no number.
    """
    found = {}
    for key, value in parse_pairs(items, "--threshold-for").items():
        try:
            found[key] = float(value)
        except ValueError:
            raise InputError(f"--threshold-for {key}={value} is no number; give one above 0 and at most 1") from None
    return found


def open_socket(host: str, port: int) -> socket.socket:
    """Return a socket at an address, on which nothing listens yet.

    Raises:
        InputError: When the address cannot be had.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        opened = socket.socket(family, socket.SOCK_STREAM)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
    except (OSError, UnicodeError) as error:
        reason = "another program listens there" if getattr(error, "errno", None) == errno.EADDRINUSE else None
        reason = reason or describe_os_error(error) or "there is no such address"
        raise InputError(f"cannot listen on --host {host} --port {port}: {reason}; choose another") from None
    return opened


def run_server(app: Any, settings: ServerSettings, opened: socket.socket, announce: Callable[[str], object]) -> None:
    """Serve until the process is told to stop (SIGTERM, Ctrl-C); then requests under way get their time to end.

    Args:
        app: The application.
        settings: The server's settings.
        opened: Where to listen.
        announce: Told the server's address once it answers.
    """
    host, port = opened.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        # The address that a client claims in a header is not its address.
        proxy_headers=False,
        lifespan="on",
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=max(1, round(settings.shutdown_timeout)),
        h11_max_incomplete_event_size=LARGEST_HEAD,
        http="h11",
    )
    asyncio.run(Server(config, lambda: announce(f"http://{shown}:{port}")).serve(sockets=[opened]))


class Server(uvicorn.Server):
    """A server that says when it is there, and whose end by a signal is no failure."""

    def __init__(self, config: uvicorn.Config, announce: Callable[[], object]):
        """Serve by `config`, and call `announce` once requests are answered."""
        super().__init__(config)
        self.announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start listening, and say so."""
        await super().startup(sockets=sockets)
        if self.started:
            self.announce()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take SIGTERM and Ctrl-C as the wish to end in peace; they are not raised again afterwards."""
        with super().capture_signals():
            yield
            self._captured_signals.clear()
