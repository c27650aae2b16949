"""A server in a process of its own, as the command starts it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.serve.support import Live


class ServerProcess(Live):
    """`mllm-protector serve` with some options, at a free port; it answers once this is made."""

    def __init__(self, *options: object, environment: dict[str, str] | None = None):
        words = [sys.executable, "-m", "llava.cli", "serve", "--port", "0", *map(str, options)]
        self.process = subprocess.Popen(
            words,
            env={**os.environ, **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        self.log: list[str] = []
        self.reader = threading.Thread(target=lambda: self.log.extend(self.process.stderr), daemon=True)
        self.reader.start()
        line = self.process.stdout.readline()
        assert line.startswith("listening on http://"), "".join(self.log)
        super().__init__(line.split()[-1])

    def end(self, number: int = signal.SIGTERM) -> int:
        """Tell it to stop, and return its exit code."""
        self.process.send_signal(number)
        code = self.process.wait(30)
        self.reader.join(5)
        return code


@pytest.fixture(scope="session")
def served(tiny_detector: Path, tiny_detoxifier: Path):
    """A guard alone, with tiny real models."""
    options = ("--detector", tiny_detector, "--detoxifier", tiny_detoxifier, "--dtype", "float32")
    process = ServerProcess(*options, "--max-new-tokens", 8)
    yield process
    assert process.end(signal.SIGINT) == 0, "".join(process.log)
