"""Several requests at once on the same objects: results as one after another, and nothing shared is changed."""

from __future__ import annotations

import random
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import GenerationConfig

from llava import Detoxifier, HarmDetector, Protector, build_guard, load_mllm
from llava.protector.config import ProtectorConfig
from llava.protector.guards.composite import CompositeGuard
from tests.tiny_guards import SAFE, UNSAFE

THREADS, ROUNDS = 6, 4
PROMPTS = ["How?", "Why does bread rise?", "What is in the image?", "List the steps."]
RESPONSES = [UNSAFE, SAFE, "Mix flour, water and yeast. " * 6, "1. first 2. second 3. third"]


@contextmanager
def eager_switching():
    """Let threads take turns a thousand times as often as usual."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


@pytest.fixture(scope="module")
def parts(tiny_detector, tiny_detoxifier, tiny_guard, tiny_llava) -> dict[str, Any]:
    """Everything that a server would hold, with language models and tokenizers in two roles each."""
    guard: Any = build_guard(f"guard:{tiny_guard('llama_guard')}", device="cpu", dtype="float32")
    # The checkpoint's own defaults would show at once if one call used another's.
    guard.model.generation_config = GenerationConfig(eos_token_id=2, pad_token_id=2, repetition_penalty=5.0)
    config = ProtectorConfig("detoxifier", max_length=128)
    mllm = load_mllm(tiny_llava, device="cpu", dtype="float32")
    return {
        "detector": HarmDetector.from_pretrained(tiny_detector, device="cpu", dtype="float32"),
        "detoxifier": Detoxifier.from_pretrained(tiny_detoxifier, device="cpu", dtype="float32"),
        "guard": guard,
        "sharing": Detoxifier(guard.model, guard.tokenizer, config),
        "mllm": mllm,
        "backbone": Detoxifier(mllm.model, mllm.tokenizer, config),
    }


def list_work(parts: dict[str, Any]) -> list[Any]:
    """Return calls of all kinds, each with its own texts."""
    detector, detoxifier, guard, sharing, mllm, backbone = parts.values()
    image = Image.new("RGB", (32, 32), "red")
    both = CompositeGuard("any", [detector, guard])
    scores = detector.score(RESPONSES, PROMPTS)
    protector = Protector(detector, detoxifier, threshold=sorted(scores)[1])
    return [
        lambda: detector.score(RESPONSES, PROMPTS),
        lambda: detector.score(RESPONSES[2:], PROMPTS[2:], batch_size=1),
        lambda: detoxifier.rewrite(PROMPTS, RESPONSES, max_new_tokens=12),
        lambda: detoxifier.rewrite(PROMPTS[:2], RESPONSES[:2], max_new_tokens=20),
        lambda: sharing.rewrite(PROMPTS, RESPONSES, max_new_tokens=10),
        lambda: guard.score(RESPONSES[:2], PROMPTS[:2]),
        lambda: backbone.rewrite(PROMPTS, RESPONSES, max_new_tokens=10),
        lambda: backbone.rewrite(["a"] * 30, ["b"] * 30, batch_size=30, max_new_tokens=1),
        lambda: mllm.generate(["a"] * 30, max_new_tokens=1),
        lambda: both.score(RESPONSES, PROMPTS),
        lambda: protector.guard(PROMPTS, RESPONSES, max_new_tokens=8),
        lambda: mllm.generate(PROMPTS, max_new_tokens=10),
        lambda: mllm.generate(PROMPTS[:2], [image, None], max_new_tokens=10),
        lambda: mllm.generate(PROMPTS, max_new_tokens=8, temperature=1.5, seeds=[1, 2, 3, 4]),
    ]


def read_state(parts: dict[str, Any]) -> list[Any]:
    """Return what belongs to all calls: the attributes of every module, generation defaults, padding."""
    models = [parts["detector"].classifier, *(part.model for name, part in parts.items() if name != "detector")]
    state: list[Any] = [torch.get_num_threads(), torch.random.get_rng_state().tolist()]
    for model in models:
        for module in model.modules():
            tables = {k: dict(v) for k, v in vars(module).items() if isinstance(v, dict) and k != "_parameters"}
            plain = {k: id(v) for k, v in vars(module).items() if not isinstance(v, dict)}
            state.append((plain, {k: {key: id(value) for key, value in v.items()} for k, v in tables.items()}))
    tokenizers = [part.tokenizer for part in parts.values()]
    return [*state, *((tokenizer.padding_side, tokenizer.pad_token_id) for tokenizer in tokenizers)]


def test_threads_get_what_one_request_after_another_gets(parts):
    work = list_work(parts)
    state = read_state(parts)
    expected = [call() for call in work]
    assert read_state(parts) == state
    places = list(range(len(work))) * ROUNDS
    random.Random(0).shuffle(places)
    together = threading.Barrier(THREADS)
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda _: together.wait(), range(THREADS)))  # every thread is there before it gets work
        with eager_switching():
            found = list(pool.map(lambda place: work[place](), places))
    for place, result in zip(places, found, strict=True):
        assert result == expected[place], place
    assert read_state(parts) == state


def test_models_may_be_loaded_at_once(tiny_detector, tiny_detoxifier, tiny_llava):
    alone = HarmDetector.from_pretrained(tiny_detector, device="cpu").score(RESPONSES, PROMPTS)

    def load(kind: int) -> Any:
        if kind == 0:
            return HarmDetector.from_pretrained(tiny_detector, device="cpu").score(RESPONSES, PROMPTS)
        if kind == 1:
            return Detoxifier.from_pretrained(tiny_detoxifier, device="cpu").rewrite(["a"], ["b"], max_new_tokens=2)
        return load_mllm(tiny_llava, device="cpu").generate(["Hi"], max_new_tokens=2)

    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(load, [0, 1, 2] * 3))
    assert [scores == pytest.approx(alone, abs=1e-6) for scores in found[::3]] == [True] * 3
    assert found[1] == found[4] == found[7]
    assert found[2] == found[5] == found[8]
