"""Servers for tests of the chat: the real application in uvicorn on loopback, an upstream in a process of its own."""

from __future__ import annotations

import contextlib
import json
import math
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, MutableSequence
from pathlib import Path
from typing import Any

import httpx
import torch
import uvicorn

from llava.serve.app import build_app
from llava.serve.chat.images import ImageReader
from llava.serve.chat.router import Chat
from llava.serve.chat.upstream import Upstream
from llava.serve.service import GuardService
from llava.serve.settings import ServerSettings

HARMFUL = "poison"
"""The word that makes a text harmful to a `WordGuard`."""
HARM_SCORE = 0.9


class WordGuard:
    """A guard whose judgement everybody can foresee: a text with the word is harmful, one without is not."""

    name, identity, threshold = "words", "words@0.5", 0.5

    def __init__(self, failure: str | None = None):
        """Judge, or fail in a certain way at texts with the word `fail`."""
        self.failure = failure
        self.texts: MutableSequence[str] = []

    def score(self, responses: list[str], prompts: list[str]) -> list[float]:
        """Return the score of each response."""
        self.texts += responses
        if self.failure and any("fail" in response for response in responses):
            return self.fail(len(responses))
        return [HARM_SCORE if HARMFUL in response.lower() else 0.1 for response in responses]

    def fail(self, count: int) -> list[float]:
        """Fail."""
        if self.failure == "exception":
            raise RuntimeError("the detector is broken: it saw the secret words of the user")
        if self.failure == "memory":
            raise torch.OutOfMemoryError("out of memory")
        if self.failure == "timeout":
            time.sleep(1.5)
        return [math.nan] * count


class Live:
    """An address that answers."""

    def __init__(self, url: str, service: GuardService, backend: Any):
        self.url = url
        self.service = service
        self.backend = backend
        self.http = httpx.Client(base_url=url, timeout=60, trust_env=False)

    def ask(self, text: str = "Hello.", **fields: object) -> httpx.Response:
        """Ask for a chat completion."""
        body = {"model": "echo", "messages": [{"role": "user", "content": text}], **fields}
        return self.http.post("/v1/chat/completions", json=body)

    def stream(self, text: str = "Hello.", **fields: object) -> Streamed:
        """Ask for one in pieces, and read it to its end."""
        return read_stream(self.ask(text, stream=True, **fields))


class Streamed:
    """A stream, read."""

    def __init__(self, events: list[dict], done: bool):
        self.events = events
        self.done = done
        self.errors = [event["error"] for event in events if "error" in event]
        self.choices = [choice for event in events for choice in event.get("choices", [])]
        self.usage = next((event["usage"] for event in reversed(events) if event.get("usage")), None)

    def text(self, index: int = 0, field: str = "content") -> str:
        """Return what a choice says."""
        return "".join(c["delta"].get(field) or "" for c in self.choices if c["index"] == index)

    def reason(self, index: int = 0) -> str | None:
        """Return why a choice ended."""
        return next((c["finish_reason"] for c in self.choices if c["index"] == index and c["finish_reason"]), None)

    def verdict(self, index: int = 0) -> dict:
        """Return what is said about the decision."""
        return next(c["mllm_protector"] for c in self.choices if c["index"] == index and "mllm_protector" in c)


def read_stream(answer: httpx.Response) -> Streamed:
    """Read a stream that came whole, by the letter."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    parts = answer.text.split("\n\n")
    assert parts.pop() == ""
    assert all(re.fullmatch(r"data: .*", part) for part in parts)
    data = [part.removeprefix("data: ") for part in parts]
    done = bool(data) and data[-1] == "[DONE]"
    return Streamed([json.loads(part) for part in data if part != "[DONE]"], done)


@contextlib.contextmanager
def serve_app(app: object) -> Iterator[str]:
    """Run an application in uvicorn, in a thread; gives its address."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", access_log=False))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(10)


@contextlib.contextmanager
def serve_chat(protector: object, backend: object, *, may_connect: object = None, **settings: object) -> Iterator[Live]:
    """Run a guard before a model."""
    chosen = ServerSettings(**settings)
    service = GuardService(protector, chosen)
    images = ImageReader(chosen, may_connect) if may_connect else None
    with serve_app(build_app(chosen, service, Chat(chosen, service, backend, images))) as url:
        yield Live(url, service, backend)


def before_upstream(url: str, **options: object) -> Upstream:
    """Return the backend that asks an upstream."""
    return Upstream(url, "upstream-key", **options)


class ServerProcess:
    """A server that can be killed and started again at the same port."""

    def __init__(self, folder: Path):
        self.place = folder / "port"
        self.process: Any = None
        self.port = 0
        self.start()

    def name_command(self) -> list[str]:
        """Return the words that start it."""
        raise NotImplementedError

    def start(self) -> None:
        """Start it; it answers when this returns."""
        self.place.unlink(missing_ok=True)
        self.process = subprocess.Popen(self.name_command())
        while not self.place.exists():
            assert self.process.poll() is None
            time.sleep(0.01)
        self.port = int(self.place.read_text())

    def kill(self) -> None:
        """Kill it."""
        self.process.kill()
        self.process.wait()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"


class GuardProcess(ServerProcess):
    """A guard before an upstream."""

    def __init__(self, folder: Path, upstream: str):
        self.upstream = upstream
        super().__init__(folder)

    def name_command(self) -> list[str]:
        """Return the words that start it."""
        module = "tests.serve.chat.guard_process"
        return [sys.executable, "-m", module, str(self.place), str(self.port), self.upstream]


class UpstreamProcess(ServerProcess):
    """A scripted upstream."""

    def name_command(self) -> list[str]:
        """Return the words that start it."""
        script = Path(__file__).with_name("scripted_upstream.py")
        return [sys.executable, "-S", str(script), str(self.place), str(self.port)]

    def put(self, name: str, **script: object) -> None:
        """Give it a script."""
        httpx.post(f"{self.url}/scripts/{name}", json=script, trust_env=False).raise_for_status()

    def log(self) -> list[dict]:
        """Return what it was asked."""
        return httpx.get(f"{self.url}/log", trust_env=False).json()


def render_chunks(*deltas: dict, index: int = 0) -> list[str]:
    """Return the events of an answer: each delta, its end, the end mark."""
    choices = [{"index": index, "delta": delta, "finish_reason": None} for delta in deltas]
    choices.append({"index": index, "delta": {}, "finish_reason": "stop"})
    return [*(render_chunk(choice) for choice in choices), "data: [DONE]\n\n"]


def render_chunk(*choices: dict, **fields: object) -> str:
    """Return one event."""
    head = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return f"data: {json.dumps({**head, 'choices': list(choices), **fields})}\n\n"
