"""A scripted model on a server, and the demo in a process of its own."""

from __future__ import annotations

import pytest

from tests.serve.chat.live import UpstreamProcess


@pytest.fixture(scope="package")
def upstream(tmp_path_factory):
    """Says what the question says."""
    process = UpstreamProcess(tmp_path_factory.mktemp("upstream"))
    yield process
    process.kill()
