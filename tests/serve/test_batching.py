import asyncio
import threading
import time

import pytest

from llava.serve.batching import Batcher
from llava.serve.errors import GuardStoppedError, GuardTimeoutError


class Work:
    """Doubles numbers in batches, keeps them, and fails at 13."""

    def __init__(self, hold: threading.Event | None = None):
        self.batches: list[list[int]] = []
        self.hold = hold

    def __call__(self, items: list[int]) -> list[int]:
        self.batches.append(items)
        if self.hold:
            self.hold.wait(5)
        if 13 in items:
            raise ValueError("13")
        return [2 * item for item in items]


def submit_later(batcher: Batcher, items: list[int], found: dict) -> threading.Thread:
    """Submit items in a thread; returns once they wait."""
    before = batcher.count_waiting()
    name = len(found)
    found[name] = None

    def run() -> None:
        found[name] = batcher.submit(items, 5)

    thread = threading.Thread(target=run)
    thread.start()
    while batcher.count_waiting() == before:
        time.sleep(0.002)
    return thread


def test_a_small_request_does_not_wait_for_a_large_one():
    hold = threading.Event()
    work = Work(hold)
    batcher = Batcher("work", work, batch_size=4)
    first = threading.Thread(target=batcher.submit, args=([0], 5))
    first.start()
    while not work.batches:
        time.sleep(0.002)
    found: dict = {}
    threads = [submit_later(batcher, items, found) for items in (list(range(100, 600)), [1], [2])]
    hold.set()
    for thread in [first, *threads]:
        thread.join()
    # One of each in turn, then what is left of the room goes to the large one.
    assert work.batches[1] == [100, 1, 2, 101]
    assert found[0] == [2 * item for item in range(100, 600)]
    assert (found[1], found[2]) == ([2], [4])
    batcher.stop()


def test_one_bad_text_fails_alone():
    work = Work()
    batcher = Batcher("work", work, batch_size=8)
    outcomes = batcher.submit([1, 13, 2], 5)
    assert [outcomes[0], outcomes[2]] == [2, 4]
    assert isinstance(outcomes[1], ValueError)
    assert work.batches == [[1, 13, 2], [1], [13], [2]]
    batcher.stop()


def test_too_few_results_are_a_failure():
    batcher = Batcher("work", lambda items: [1], batch_size=8)
    assert batcher.submit([5], 5) == [1]
    assert batcher.submit([5, 6], 5) == [1, 1]  # each alone has its one
    none = Batcher("work", lambda items: [], batch_size=8)
    assert all(isinstance(outcome, ValueError) for outcome in none.submit([5, 6], 5))


def test_late_work_is_dropped():
    hold = threading.Event()
    work = Work(hold)
    batcher = Batcher("work", work, batch_size=1)
    with pytest.raises(GuardTimeoutError, match="did not answer in time"):
        batcher.submit([1, 2, 3], 0.05)
    with pytest.raises(GuardTimeoutError):
        batcher.submit([4], 0.0)
    assert batcher.stuck_for() > 0
    hold.set()
    assert batcher.submit([5], 5) == [10]
    assert work.batches == [[1], [5]]  # 2 and 3 were wanted by nobody any more
    batcher.stop()


def test_calls_take_their_turn_between_batches():
    order = []
    batcher = Batcher("work", lambda items: [order.append(tuple(items)) for _ in items], batch_size=8)

    async def run() -> str:
        return await batcher.call(lambda: order.append("call") or "done", 5)

    assert asyncio.run(run()) == "done"
    batcher.submit([1, 2], 5)
    assert order[0] == "call"

    async def fail() -> None:
        await batcher.call(lambda: 1 / 0, 5)

    with pytest.raises(ZeroDivisionError):
        asyncio.run(fail())

    async def late() -> None:
        await batcher.call(lambda: time.sleep(0.2), 0.02)

    with pytest.raises(GuardTimeoutError):
        asyncio.run(late())
    batcher.stop()


def test_after_the_end_nothing_is_taken():
    hold = threading.Event()
    work = Work(hold)
    batcher = Batcher("work", work, batch_size=1)
    first = threading.Thread(target=batcher.submit, args=([1], 5))
    first.start()
    while not work.batches:
        time.sleep(0.002)
    errors: list[Exception] = []

    def run() -> None:
        try:
            batcher.submit([2], 5)
        except GuardStoppedError as error:
            errors.append(error)

    waiting = threading.Thread(target=run)
    waiting.start()
    while not batcher.count_waiting():
        time.sleep(0.002)
    batcher.stop()
    with pytest.raises(GuardStoppedError, match="takes no more work"):
        batcher.submit([3], 5)
    hold.set()
    first.join()
    waiting.join()
    assert len(errors) == 1
