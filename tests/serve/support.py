"""The guard's server for tests: the real application in uvicorn on loopback."""

from __future__ import annotations

import contextlib
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import httpx

from llava import Protector
from llava.serve.app import build_app
from llava.serve.audit import JsonFormatter
from llava.serve.service import GuardService
from llava.serve.settings import ServerSettings
from tests.serve.chat.live import WordGuard, serve_app

SAFE, HARMFUL = "Boil the water.", "This is poison."
FAILING = "This must fail."
"""A text at which a `WordGuard` fails that was told how."""
SECRET = "zanzibar"
"""Stands in texts of tests that no log may hold."""


class Writer:
    """A detoxifier whose rewrites everybody can foresee; it keeps the sizes of its batches."""

    def __init__(self, rewrite: str = "Please be kind.", failure: Exception | None = None):
        self.text = rewrite
        self.failure = failure
        self.batches: list[int] = []

    def rewrite(self, prompts, responses, batch_size=8, max_new_tokens=256):
        self.batches.append(len(responses))
        if self.failure:
            raise self.failure
        return [self.text] * len(responses)


class Live:
    """A server that answers, and the service behind it where it is in this process."""

    def __init__(self, url: str, service: GuardService | None = None):
        self.url = url
        self.service = service
        self.guard: Any = service.protector.detector if service else None
        self.http = httpx.Client(base_url=url, timeout=60, trust_env=False)


@contextlib.contextmanager
def serve_guard(guard: object = None, writer: object = None, **settings: object) -> Iterator[Live]:
    """Run the routes of a guard; gives what asks them."""
    chosen = ServerSettings(**settings)
    service = GuardService(Protector(guard or WordGuard(), writer), chosen)
    with serve_app(build_app(chosen, service)) as url:
        yield Live(url, service)


@contextlib.contextmanager
def read_logs(log_text: bool = False) -> Iterator[list[dict]]:
    """Give the log lines of a block, as a server writes them; complete after its end."""
    stream, found = io.StringIO(), []
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter(log_text))
    loggers = [logging.getLogger(name) for name in ("mllm_protector", "llava")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    try:
        yield found
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
        found += [json.loads(line) for line in stream.getvalue().splitlines()]


def list_decisions(logs: list[dict]) -> list[dict]:
    """Return the audit lines."""
    return [line for line in logs if line.get("event") == "decision"]


def read_metric(live: Live, name: str, **labels: str) -> float:
    """Return the value of a counter; 0 where it has not been counted."""
    wanted = {f'{key}="{value}"' for key, value in labels.items()}
    for line in live.http.get("/metrics").text.splitlines():
        head, _, value = line.rpartition(" ")
        if head.partition("{")[0] == name and wanted <= set(head.partition("{")[2].rstrip("}").split(",")):
            return float(value)
    return 0.0
