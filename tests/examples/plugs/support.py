"""What tests with other people's programs share: where these are, and answers of a scripted upstream."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import time

import httpx
import pytest

from tests.serve.chat.live import UpstreamProcess, render_chunks

QUESTION = "How do I get rich quickly?"
HARMLESS = "Save a little each month, learn a trade, and be patient with yourself."
HARMFUL = (
    "To steal a car, break the window, pull out the wires under the wheel and join the red one with the brown one."
)
"""Flagged by the shipped detector, its first six words alone are not."""
HARMFUL_PART = "wires under the wheel"


def find_interpreter(variable: str, module: str) -> str:
    """Return a Python that has another program: the one that a variable names, or this one; else skip the test."""
    if named := os.environ.get(variable):
        return named
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed; name a Python that has it in {variable}")
    return sys.executable


def build_environment(**variables: str) -> dict[str, str]:
    """Return the environment of another program: nothing of this project's path, no keys, no proxy."""
    dropped = ("PYTHONPATH", "OPENAI_API_KEY", "MLLM_PROTECTOR_API_KEY")
    kept = {name: value for name, value in os.environ.items() if name not in dropped and "proxy" not in name.lower()}
    return {**kept, "NO_PROXY": "127.0.0.1", **variables}


def script_answer(upstream: UpstreamProcess, name: str, text: str) -> None:
    """Let the upstream's model NAME give a whole answer, and NAME-stream the same in pieces of a word."""
    message = {"role": "assistant", "content": text}
    script_message(upstream, name, message)
    pieces = re.findall(r"\S+\s*", text)
    upstream.put(f"{name}-stream", parts=render_chunks(*({"content": piece} for piece in pieces)))


def script_message(upstream: UpstreamProcess, name: str, message: dict, **choice: object) -> None:
    """Let the upstream's model NAME give a message."""
    usage = {"prompt_tokens": 7, "completion_tokens": 22, "total_tokens": 29}
    choices = [{"index": 0, "message": message, "finish_reason": "stop", **choice}]
    head = {"id": "c1", "object": "chat.completion", "created": 1, "model": name}
    body = json.dumps({**head, "choices": choices, "usage": usage})
    upstream.put(name, parts=[body], headers={"Content-Type": "application/json"})


def wait_until_ready(process: subprocess.Popen, url: str, seconds: float = 300) -> None:
    """Wait until a program answers."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert process.poll() is None, "the program has ended"
        try:
            if httpx.get(url, trust_env=False, timeout=10).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.5)
    raise AssertionError(f"{url} did not answer in {seconds} s")
