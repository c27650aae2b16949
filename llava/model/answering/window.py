"""A sliding window of requests: a new one starts as soon as one ends, and what has ended is handed on at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_window(
    work: Callable[[Item, threading.Event], Result], items: Iterable[Item], most: int
) -> Iterator[list[tuple[Item, Result]]]:
    """Work on items in threads and yield them with their results in groups, as they end.

    The window is filled again before a group is yielded, so the threads are busy while the caller stores it. When the
    work fails, no new item is started; those under way are told to give up waiting, and what they still bring is
    yielded before the error is raised. So nothing that was answered is lost.

    Args:
        work: Called in a thread with an item and an event that is set when there is no sense in trying again.
        items: What to work on; taken one by one, in the caller's thread, as the window has room.
        most: Items under way at a time.

    Yields:
        What ended since the last group, in the order in which it was started; never an empty list.

    Example:
        >>> groups = map_window(lambda item, ended: item * 2, range(3), 2)
        >>> sorted(pair for group in groups for pair in group)
        [(0, 0), (1, 2), (2, 4)]
    """
    source = iter(items)
    ended = threading.Event()
    under_way: dict[Future[Result], Item] = {}
    failures: list[BaseException] = []
    pool = ThreadPoolExecutor(most)

    def fill() -> None:
        if failures:
            return
        try:
            for item in islice(source, most - len(under_way)):
                under_way[pool.submit(work, item, ended)] = item
        except Exception as error:  # noqa: BLE001 - raised below, when what is under way has come in
            fail(error)

    def fail(error: BaseException) -> None:
        failures.append(error)
        ended.set()

    try:
        fill()
        while under_way:
            wait(under_way, return_when=FIRST_COMPLETED)
            group: list[tuple[Item, Result]] = []
            for future in [future for future in under_way if future.done()]:
                item = under_way.pop(future)
                if (error := future.exception()) is not None:
                    fail(error)
                else:
                    group.append((item, future.result()))
            fill()
            if group:
                yield group
    finally:
        # Reached with work under way only when the caller leaves early, e.g. after Ctrl-C.
        ended.set()
        pool.shutdown(wait=not under_way, cancel_futures=True)
    if failures:
        raise failures[0]
