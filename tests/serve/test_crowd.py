"""Many clients at once: nobody gets somebody else's judgement, and batches are shared."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.serve.support import read_metric, serve_guard


class NumberGuard:
    """Scores a text by the number in it, which tells whose it is, and keeps the sizes of its batches."""

    name, identity, threshold = "numbers", "numbers@0.5", 0.5

    def __init__(self):
        self.sizes: list[int] = []
        self.lock = threading.Lock()

    def score(self, responses, prompts):
        assert self.lock.acquire(blocking=False), "the detector has one thread"
        self.sizes.append(len(responses))
        self.lock.release()
        return [int(response.split()[-1]) / 1000 for response in responses]


class Echo:
    """Rewrites each response into the safe number 7 with the response's own beside it."""

    def rewrite(self, prompts, responses, batch_size=8, max_new_tokens=256):
        return [f"instead of {response.split()[-1]}: 7" for response in responses]


def test_answers_are_everybodys_own():
    draw = random.Random(0)
    jobs = [[draw.randrange(1000) for _ in range(draw.choice([1, 1, 2, 40]))] for _ in range(96)]

    def ask(numbers: list[int]) -> None:
        texts = [f"text {number}" for number in numbers]
        found = http.post("/classify", json={"input": texts}).json()["data"]
        assert [entry["probs"][1] for entry in found] == pytest.approx([number / 1000 for number in numbers])
        body = {"input_type": "response", "texts": texts}
        answers = http.post("/beta/litellm_basic_guardrail_api", json=body).json()["texts"]
        expected = [f"instead of {number}: 7" if number >= 500 else f"text {number}" for number in numbers]
        assert answers == expected

    with serve_guard(NumberGuard(), Echo(), queue_limit=60_000, batch_size=16) as live:
        limits = httpx.Limits(max_connections=32)
        http = httpx.Client(base_url=live.url, timeout=120, trust_env=False, limits=limits)
        with http, ThreadPoolExecutor(32) as pool:
            list(pool.map(ask, jobs))
        assert max(live.guard.sizes) == 16
        assert read_metric(live, "mllm_protector_pending_texts") == 0
        assert live.service.detector.count_waiting() == 0
