from __future__ import annotations

import pytest

from llava.eval.scoring.scoring import score_run
from tests.eval.build import build_mixed_run


@pytest.fixture
def summary(tmp_path):
    """The summary of a run with harmful and harmless questions, with and without images."""
    return score_run(build_mixed_run(tmp_path))
