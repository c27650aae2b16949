"""A small OpenAI-compatible server on loopback, for tests: real HTTP, and answers by any function."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from llava.model.answering.client import ChatClient


class ChatServer(ThreadingHTTPServer):
    """Serves one model, `tiny`.

    What `answer` returns is the text of the reply (or None), the whole body as a dict or as bytes, or an iterator of
    pieces that are sent as they come, without a length. `failures` (status, headers and, if need be, the body) are sent
    before the first answers; `refuse` gives the status or such a failure for a request that is turned down, or None;
    after `lives` answers the server is as good as dead: it drops every connection.
    """

    request_queue_size = 512  # as many may knock at once; with the usual 5 a busy machine drops them

    def __init__(
        self,
        answer: Callable[[dict], str | dict | bytes | Iterator[bytes] | None],
        failures: Sequence[tuple] = (),
        *,
        refuse: Callable[[dict], int | tuple | None] = lambda request: None,
        lives: int | None = None,
    ):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer = answer
        self.failures = list(failures)
        self.refuse = refuse
        self.lives = lives
        self.requests: list[dict] = []
        self.keys: list[str | None] = []
        self.paths: list[str] = []
        self.models: list[str] | None = ["tiny"]
        self.running = 0
        self.most_running = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *error):
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    server: ChatServer

    def log_message(self, *arguments):
        pass

    def send(self, status: int, body: object, headers: dict | None = None) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def drip(self, pieces: Iterator[bytes]) -> None:
        self.send_response(200)
        self.end_headers()
        with contextlib.suppress(OSError):  # who asked has gone
            for piece in pieces:
                self.wfile.write(piece)

    def do_GET(self):
        self.server.keys.append(self.headers.get("Authorization"))
        self.server.paths.append(self.path)
        if self.server.models is None:
            self.send(404, {"error": "not here"})
        else:
            self.send(200, {"object": "list", "data": [{"id": name} for name in self.server.models]})

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        with server.lock:
            server.requests.append(request)
            server.keys.append(self.headers.get("Authorization"))
            server.paths.append(self.path)
            failure = server.failures.pop(0) if server.failures else None
            if failure is None and (refusal := server.refuse(request)) is not None:
                failure = refusal if isinstance(refusal, tuple) else (refusal, {})
            dead = failure is None and server.lives == 0
            if failure is None and server.lives:
                server.lives -= 1
            server.running += 1
            server.most_running = max(server.most_running, server.running)
        try:
            if dead:
                self.close_connection = True
                return
            if failure is not None:
                status, headers, *body = failure
                self.send(status, body[0] if body else {"error": {"message": f"failure {status}"}}, headers)
                return
            made = server.answer(request)
            if isinstance(made, Iterator):
                self.drip(made)
            else:
                self.send(200, made if isinstance(made, (dict, bytes)) else complete(made))
        finally:
            with server.lock:
                server.running -= 1


def complete(content: object, finish: str = "stop", **message: object) -> dict:
    """Return the body of a completion."""
    return {
        "choices": [{"message": {"role": "assistant", "content": content, **message}, "finish_reason": finish}],
        "error": None,
    }


def echo(request: dict) -> str:
    """Answer with what was asked."""
    content = request["messages"][0]["content"]
    return f"you said {content}" if isinstance(content, str) else f"{len(content)} parts"


def connect(server: ChatServer) -> ChatClient:
    """Return a client that does not wait long."""
    return ChatClient(server.url, "tiny", first_wait=0.01)
