from __future__ import annotations

import pytest

from tests.examples.plugs.support import HARMFUL, HARMLESS, script_answer
from tests.serve.chat.live import UpstreamProcess
from tests.serve.conftest import ServerProcess


@pytest.fixture(scope="session")
def upstream(tmp_path_factory):
    """A model server whose models `good` and `bad` (and `good-stream`, `bad-stream`) say what one expects of them."""
    process = UpstreamProcess(tmp_path_factory.mktemp("upstream"))
    script_answer(process, "good", HARMLESS)
    script_answer(process, "bad", HARMFUL)
    yield process
    process.kill()


@pytest.fixture(scope="session")
def guard(upstream):
    """`mllm-protector serve` with what ships, before the upstream."""
    options = ("--upstream", f"{upstream.url}/v1", "--detector", "embedded", "--detoxifier", "embedded")
    process = ServerProcess(*options, "--max-new-tokens", 24)
    yield process
    process.end()
