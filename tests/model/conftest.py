"""Original-format checkpoints, written once."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def originals(tmp_path_factory) -> dict[str, Path]:
    """One tiny original-format checkpoint of each form, by name; `base` and `clip` lie beside them."""
    from tests.model.original_checkpoints import write_all

    return write_all(tmp_path_factory.mktemp("originals"))


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache folder."""
    monkeypatch.setenv("MLLM_PROTECTOR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
