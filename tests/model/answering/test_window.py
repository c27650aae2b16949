"""A window of work: full while there is work, and nothing that ended is lost."""

from __future__ import annotations

import threading
import time

import pytest

from llava.model.answering.window import map_window


def collect(groups, kept):
    for group in groups:
        kept += group


def test_the_window_is_filled_before_a_group_is_handed_on():
    running, most = [0], [0]
    lock = threading.Lock()

    def work(item, ended):
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        # The first ones wait for a full window, however slow the machine is.
        deadline = time.perf_counter() + 60
        while item < 5 and most[0] < 5 and time.perf_counter() < deadline:
            time.sleep(0.001)
        time.sleep(0.02)
        with lock:
            running[0] -= 1
        return -item

    pairs = []
    for group in map_window(work, range(40), 5):
        assert group
        pairs += group
        started = time.perf_counter()
        while running[0] == 0 and len(pairs) < 30:  # the next ones work while the caller has this group
            assert time.perf_counter() - started < 60
            time.sleep(0.001)
    assert sorted(pairs) == [(item, -item) for item in range(40)]
    assert most[0] == 5


def test_a_failure_keeps_what_is_under_way_and_starts_nothing_new():
    started = []
    others = threading.Event()

    def work(item, ended):
        started.append(item)
        if item == 1:
            assert others.wait(60)
            raise KeyError(item)
        if item == 3:
            others.set()
        if item > 1:
            assert ended.wait(60)
        return item

    kept = []
    with pytest.raises(KeyError):
        collect(map_window(work, range(100), 3), kept)
    assert sorted(kept) == [(0, 0), (2, 2), (3, 3)]
    assert sorted(started) == [0, 1, 2, 3]


def test_a_source_that_fails_loses_nothing_either():
    def source():
        yield from range(3)
        raise OSError("no more claims")

    kept = []
    with pytest.raises(OSError, match="no more claims"):
        collect(map_window(lambda item, ended: item, source(), 2), kept)
    assert sorted(kept) == [(0, 0), (1, 1), (2, 2)]


def test_nothing_to_do_yields_nothing():
    assert list(map_window(lambda item, ended: item, [], 4)) == []


def test_a_caller_that_leaves_early_does_not_wait():
    gate = threading.Event()

    def work(item, ended):
        return item if item == 0 else ended.wait(300)

    started = time.perf_counter()
    for _ in map_window(work, range(10), 3):
        break
    gate.set()
    assert time.perf_counter() - started < 60
