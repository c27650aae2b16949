"""A scripted model on a server, and the demo in a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from llava import HarmDetector
from tests.serve.chat.live import UpstreamProcess

OPTIONS = ("--detoxifier", "none", "--dtype", "float32", "--device", "cpu")


class DemoProcess:
    """`mllm-protector demo` with some options, at a free port; it answers once this is made."""

    def __init__(self, *options: object):
        words = [sys.executable, "-m", "llava.cli", "demo", "--port", "0", *OPTIONS, *map(str, options)]
        self.process = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
        )
        self.log: list[str] = []
        self.reader = threading.Thread(target=lambda: self.log.extend(self.process.stderr), daemon=True)
        self.reader.start()
        line = self.process.stdout.readline()
        assert line.startswith("listening on http://127.0.0.1:"), "".join(self.log)
        self.url = line.split()[-1]

    def end(self, number: int = signal.SIGTERM) -> int:
        """Tell it to stop, and return its exit code."""
        self.process.send_signal(number)
        code = self.process.wait(30)
        self.reader.join(5)
        return code


@pytest.fixture(scope="package")
def upstream(tmp_path_factory):
    """Says what the question says."""
    process = UpstreamProcess(tmp_path_factory.mktemp("upstream"))
    yield process
    process.kill()


@pytest.fixture(scope="package")
def demo(upstream, tiny_detector: Path):
    """The demo before an upstream that writes a word every 50 ms, with a tiny real detector."""
    pytest.importorskip("gradio", reason="gradio is not installed; pip install 'mllm-protector[demo]'")
    process = DemoProcess(
        "--endpoint", upstream.url, "--model", "slow", "--detector", tiny_detector, "--queue-limit", 2
    )
    yield process
    assert process.end() == 0, "".join(process.log)


@pytest.fixture(scope="package")
def detector(tiny_detector: Path) -> HarmDetector:
    """The demo's detector, for foreseeing what it will say."""
    return HarmDetector.from_pretrained(tiny_detector, dtype="float32", device="cpu")
