"""The processes that torchrun or `accelerate launch` started, and the small messages that go between them."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import pickle
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llava.errors import FailedRunError, InputError

if TYPE_CHECKING:
    from torch.distributed import Store

MESSAGE_BYTES = 1 << 20
"""What is put into the store at once; its server refuses values of more than a few MB."""
LONGEST_PAUSE = 0.5
"""Seconds between two looks into the store, at most."""
LEAVING_SECONDS = 300.0
"""How long the first process, which may keep the store, waits for the others to have read their last message."""

_visits = itertools.count()


@dataclass(frozen=True)
class World:
    """The processes that an outside launcher started."""

    rank: int
    """Number of this process."""
    local_rank: int
    """Number of this process on its machine."""
    size: int
    """How many there are."""


def detect_world() -> World | None:
    """Return the world that torchrun or accelerate made, or None when this process stands alone."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size < 2 or "RANK" not in os.environ:
        return None
    rank = int(os.environ["RANK"])
    return World(rank, int(os.environ.get("LOCAL_RANK", rank)), size)


class JoinedWorld(World, ABC):
    """A world whose processes have found each other."""

    @abstractmethod
    def share(self, value: Any) -> Any:
        """Return rank 0's value in every process."""

    @abstractmethod
    def wait(self) -> None:
        """Wait until every process has come here."""


class GroupWorld(JoinedWorld):
    """A world that talks through the process group of the program that called us."""

    def share(self, value: Any) -> Any:
        """Return rank 0's value in every process."""
        import torch.distributed as dist

        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def wait(self) -> None:
        """Wait until every process has come here."""
        import torch.distributed as dist

        dist.barrier()


@dataclass(frozen=True)
class StoreWorld(JoinedWorld):
    """A world that talks through the launcher's key-value store, without a process group.

    A group of gloo has threads, and they live as long as anyone refers to the group: whatever module of torch or
    DeepSpeed is imported while it exists keeps it as the default of an argument, for good. Such a thread that wants the
    interpreter while that is ending aborts the process ("terminate called without an active exception"). The store's
    client has no thread, and its server never wants the interpreter. It does not notice a dead process either: to end
    the others is the launcher's part.
    """

    store: Store
    _counts: Iterator[int] = field(default_factory=itertools.count)

    def share(self, value: Any) -> Any:
        """Return rank 0's value in every process."""
        key = f"share/{next(self._counts)}"
        if self.rank == 0:
            data = pickle.dumps(value)
            parts = [data[start : start + MESSAGE_BYTES] for start in range(0, len(data), MESSAGE_BYTES)]
            for number, part in enumerate(parts):
                self.store.set(f"{key}/{number}", part)  # type: ignore[arg-type] # bytes are what it stores
            self.store.set(key, str(len(parts)))
            return value
        self._wait_until(lambda: self.store.check([key]))
        count = int(self.store.get(key))
        # As in torch's own exchange of objects: only processes of this launch reach the store.
        data = b"".join(self.store.get(f"{key}/{number}") for number in range(count))
        return pickle.loads(data)  # noqa: S301 - the same  # nosec B301

    def wait(self) -> None:
        """Wait until every process has come here."""
        self._meet(f"wait/{next(self._counts)}")

    def leave(self) -> None:
        """Let go of the others; the first process, which may keep the store, stays until they have gone."""
        deadline = time.monotonic() + LEAVING_SECONDS
        self.store.add("left", 1)
        if self.rank == 0:
            self._wait_until(lambda: self.store.add("left", 0) >= self.size or time.monotonic() > deadline)

    def _meet(self, key: str) -> None:
        self.store.add(key, 1)
        self._wait_until(lambda: self.store.add(key, 0) >= self.size)

    @staticmethod
    def _wait_until(condition: Callable[[], bool]) -> None:
        # Not the store's own waiting: Ctrl-C would not get through to it, and it gives up after a while.
        pause = 0.01
        while not condition():
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)


@functools.cache
def connect_store(world: World) -> Store:
    """Connect to the store of torchrun's agent; without one the first process keeps the store, as long as it lives.

    Were it closed after a run, a process that is already at the next run would still find the old one.
    """
    import torch.distributed as dist

    try:
        store, _, _ = next(dist.rendezvous("env://", world.rank, world.size))
    except ValueError as error:
        raise InputError(
            f"WORLD_SIZE is {world.size}, but {' '.join(str(error).split())}; start with torchrun, or unset WORLD_SIZE"
        ) from None
    return store


@contextlib.contextmanager
def join_world(world: World) -> Iterator[JoinedWorld]:
    """Join the other processes inside the block: through the caller's process group, or else the launcher's store.

    Raises:
        InputError: When the environment does not say where the others are.
        FailedRunError: When the process that keeps the store is gone.
    """
    import torch.distributed as dist

    if dist.is_initialized():
        yield GroupWorld(world.rank, world.local_rank, world.size)
        return
    store = dist.PrefixStore(f"mllm-protector/{next(_visits)}", connect_store(world))
    joined = StoreWorld(world.rank, world.local_rank, world.size, store)
    try:
        try:
            yield joined
        except (InputError, FailedRunError):  # all processes were told and end with it
            joined.leave()
            raise
        joined.leave()
    except dist.DistError:
        connect_store.cache_clear()
        raise FailedRunError(
            "the process that passes messages on (the first one, or its launcher) is gone; run the same command again"
        ) from None
