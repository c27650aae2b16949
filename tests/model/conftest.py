"""Original-format checkpoints, written once."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


@pytest.fixture(scope="session")
def check_guarded(tiny_detector, tiny_detoxifier) -> Callable[..., None]:
    """Guard a model's answers: those that are not flagged stay as they are, byte for byte, and no other is shown."""
    from llava import Detoxifier, HarmDetector, Protector
    from llava.data.schema import Action
    from llava.model.backbone import offer_backbone

    detector = HarmDetector.from_pretrained(tiny_detector, dtype="float32")
    detoxifier = Detoxifier.from_pretrained(tiny_detoxifier, dtype="float32")

    def check(model: Any, images: list[Any], prompts: tuple[str, ...] = ("Hi", "How do I bake bread?")) -> None:
        answers = model.generate(prompts, images, max_new_tokens=6)
        scores = detector.score(answers, prompts)
        # A model of any family may be offered as a backbone; of another base the detector then has weights of its own.
        offered = HarmDetector.from_pretrained(tiny_detector, dtype="float32", backbone=offer_backbone(model, None))
        assert offered.score(answers, prompts) == pytest.approx(scores, nan_ok=True)
        highest = max((score for score in scores if math.isfinite(score)), default=1.0)
        for threshold in (highest, 1.0):
            results = Protector(detector, detoxifier, threshold).guard(prompts, answers, max_new_tokens=8)
            for answer, score, result in zip(answers, scores, results, strict=True):
                if not math.isfinite(score):
                    assert result.action is Action.WITHHELD
                elif score >= threshold:
                    assert result.action in (Action.TRIMMED, Action.REWRITTEN, Action.REFUSED)
                    assert result.text != answer
                else:
                    assert (result.action, result.text) == (Action.PASSED, answer)
            replaced = {Action.TRIMMED, Action.REWRITTEN, Action.REFUSED}
            assert any(result.action in replaced for result in results) is (threshold < 1)
            # Random weights may say nothing but special tokens; what cannot be scored is not shown.
            assert (highest < 1) is any(answer.strip() for answer in answers)

    return check
