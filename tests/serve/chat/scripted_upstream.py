"""An OpenAI-compatible server for tests, a process of its own: it says what the request's last text says.

`python scripted_upstream.py PORT_FILE [PORT]` writes its port into a file. The model's name chooses how it answers:

- `echo`: the last text, in pieces of one word where it streams;
- `slow`: the same with a pause of 50 ms before each piece;
- any name that was put at `/scripts/NAME`: `{status, headers, parts: [TEXT, …], pause, then}`, the body's parts written
  as they are; `then` is `end`, `break` (the connection is cut) or `die` (the process is gone).

`GET /log` returns what was asked, and how each answer ended (`done` or `gone`).
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

SCRIPTS: dict[str, dict] = {}
LOG: list[dict] = []


def read_last_text(messages: list[dict]) -> str:
    """Return the text of the last message."""
    content = messages[-1]["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def count_tokens(text: str) -> int:
    """Return how many words a text has."""
    return len(re.findall(r"\S+\s*", text))


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        """Keep quiet."""

    def do_GET(self) -> None:
        """Answer what is asked about this server."""
        known = {"/v1/models": {"object": "list", "data": [{"id": "echo", "object": "model"}]}, "/log": LOG}
        if self.path in known:
            self.send_json(200, known[self.path])
        else:
            self.send_json(404, {"error": {"message": "no such page"}})

    def do_POST(self) -> None:
        """Answer a chat, or take a script."""
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path.startswith("/scripts/"):
            SCRIPTS[self.path.removeprefix("/scripts/")] = body
            self.send_json(200, {})
            return
        entry = {
            "client": self.client_address[1],
            "path": self.path,
            "headers": dict(self.headers),
            "body": body,
            "ended": None,
        }
        LOG.append(entry)
        try:
            self.answer(body)
            entry["ended"] = "done"
        except OSError:
            entry["ended"] = "gone"
            self.close_connection = True

    def answer(self, body: dict) -> None:
        """Answer a chat."""
        if (script := SCRIPTS.get(body.get("model"))) is not None:
            self.play(script)
        elif body.get("stream"):
            self.stream(body)
        else:
            self.say(body)

    def say(self, body: dict) -> None:
        """Send a whole answer."""
        text = read_last_text(body["messages"])
        number = body.get("n") or 1
        choices = [
            {"index": index, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            for index in range(number)
        ]
        tokens = count_tokens(text)
        usage = {"prompt_tokens": tokens, "completion_tokens": tokens * number, "total_tokens": tokens * (1 + number)}
        answer = {"id": "c1", "object": "chat.completion", "created": 1, "model": body.get("model")}
        self.send_json(200, {**answer, "choices": choices, "usage": usage})

    def stream(self, body: dict) -> None:
        """Send an answer in pieces; several choices take turns."""
        self.begin(200, {"Content-Type": "text/event-stream"})
        head = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": body.get("model")}
        text, number = read_last_text(body["messages"]), body.get("n") or 1

        def send(index: int, delta: dict, reason: str | None = None) -> None:
            choice = {"index": index, "delta": delta, "finish_reason": reason}
            self.write(f"data: {json.dumps({**head, 'choices': [choice]})}\n\n")

        for index in range(number):
            send(index, {"role": "assistant", "content": ""})
        for piece in re.findall(r"\S+\s*|\s+", text):
            if body.get("model") == "slow":
                time.sleep(0.05)
            for index in range(number):
                send(index, {"content": piece})
        for index in range(number):
            send(index, {}, "stop")
        tokens = count_tokens(text)
        usage = {"prompt_tokens": tokens, "completion_tokens": tokens * number, "total_tokens": tokens * (1 + number)}
        if (body.get("stream_options") or {}).get("include_usage"):
            self.write(f"data: {json.dumps({**head, 'choices': [], 'usage': usage})}\n\n")
        self.write("data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def play(self, script: dict) -> None:
        """Send what a script says."""
        self.begin(script.get("status", 200), script.get("headers", {"Content-Type": "text/event-stream"}))
        for part in script.get("parts", []):
            time.sleep(script.get("pause", 0))
            self.write(part)
        then = script.get("then", "end")
        if then == "die":
            os._exit(1)
        if then == "break":
            self.connection.close()
            raise OSError("cut")
        self.wfile.write(b"0\r\n\r\n")

    def begin(self, status: int, headers: dict[str, str]) -> None:
        """Send the head of an answer of unknown length."""
        self.send_response(status)
        for name, value in {**headers, "Transfer-Encoding": "chunked"}.items():
            self.send_header(name, value)
        self.end_headers()

    def write(self, text: str) -> None:
        """Send a part of a body."""
        data = text.encode()
        if data:
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            self.wfile.flush()

    def send_json(self, status: int, content: object) -> None:
        """Send a whole JSON answer."""
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class Server(ThreadingHTTPServer):
    """Takes many connections at once."""

    daemon_threads = True
    request_queue_size = 256
    allow_reuse_address = True


if __name__ == "__main__":
    server = Server(("127.0.0.1", int(sys.argv[2]) if len(sys.argv) > 2 else 0), Handler)
    place = Path(sys.argv[1])
    place.with_suffix(".new").write_text(str(server.server_address[1]))
    place.with_suffix(".new").replace(place)
    server.serve_forever()
