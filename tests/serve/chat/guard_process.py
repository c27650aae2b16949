"""A guard before an upstream, in a process of its own.

`python -m tests.serve.chat.guard_process PORT_FILE PORT UPSTREAM`
"""

from __future__ import annotations

import sys
from collections import deque
from pathlib import Path

from llava import Protector
from llava.serve.app import build_app
from llava.serve.chat.router import Chat
from llava.serve.running import open_socket, run_server
from llava.serve.service import GuardService
from llava.serve.settings import ServerSettings
from tests.serve.chat.live import WordGuard, before_upstream


def main(place: Path, port: int, upstream: str) -> None:
    """Serve, and write the port into a file once requests are answered."""
    settings = ServerSettings(port=port)
    guard = WordGuard()
    guard.texts = deque(maxlen=0)  # under load, what it remembers would look like a leak of the server's
    service = GuardService(Protector(guard), settings)
    app = build_app(settings, service, Chat(settings, service, before_upstream(upstream)))

    def announce(address: str) -> None:
        place.with_suffix(".new").write_text(address.rpartition(":")[2])
        place.with_suffix(".new").replace(place)

    run_server(app, settings, open_socket("127.0.0.1", port), announce)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
