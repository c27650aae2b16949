from __future__ import annotations

import pytest

from llava import Protector
from tests.serve.chat.live import UpstreamProcess, WordGuard, before_upstream, serve_chat


@pytest.fixture(scope="session")
def upstream(tmp_path_factory):
    """An upstream that all tests share; whoever kills one starts its own."""
    process = UpstreamProcess(tmp_path_factory.mktemp("upstream"))
    yield process
    process.kill()


@pytest.fixture(scope="session")
def guarded(upstream):
    """A guard before the upstream."""
    with serve_chat(Protector(WordGuard()), before_upstream(upstream.url)) as live:
        yield live
