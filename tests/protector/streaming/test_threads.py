"""Streams in several threads on one detector: results as one after another, and nothing shared is changed."""

import random
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from llava import Protector
from tests.protector.streaming.detectors import HARMFUL, HARMLESS, cut

THREADS = 6


@pytest.fixture
def eager_switching():
    """Let threads take turns a thousand times as often as usual."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(before)


def read_state(detector):
    """Return what belongs to all streams: the attributes and tables of every module."""
    return [
        {name: dict(value) if isinstance(value, dict) else id(value) for name, value in vars(module).items()}
        for module in detector.classifier.modules()
    ]


def test_threads_against_each_other(taught, detoxifier, eager_switching):
    generator = random.Random(0)
    protector = Protector(taught, detoxifier, threshold=0.5)
    texts = ["".join(generator.choices([HARMLESS, HARMLESS, HARMFUL], k=8)) for _ in range(THREADS)]

    def guard(text):
        return list(protector.guard_stream("Why?", cut(text, [9]), stride=16, max_new_tokens=8))

    expected = [guard(text) for text in texts]
    assert len({outs[-1] for outs in expected}) > 1
    state = read_state(taught)
    together = threading.Barrier(THREADS)

    def run(place):
        together.wait(60)
        return [guard(texts[(place + i) % THREADS]) for i in range(3)]

    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(run, range(THREADS)))
    for place, outs in enumerate(found):
        assert outs == [expected[(place + i) % THREADS] for i in range(3)]
    assert read_state(taught) == state
