"""Processes that an outside launcher started, and what they tell each other."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from llava.errors import InputError
from llava.eval.run.world import MESSAGE_BYTES, StoreWorld, World, detect_world, join_world
from tests.rounds import ROUNDS

REPOSITORY = Path(__file__).resolve().parents[3]


def test_a_world_needs_more_than_one_process(monkeypatch):
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert detect_world() is None
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert detect_world() is None
    monkeypatch.setenv("RANK", "3")
    world = detect_world()
    assert (world.rank, world.local_rank, world.size) == (3, 3, 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert detect_world().local_rank == 1
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert detect_world() is None


def test_every_process_gets_what_the_first_one_shares_and_waits_for_all():
    from torch.distributed import HashStore

    store, arrived = HashStore(), []
    # Larger than a store's server takes at once, and no whole number of parts.
    values = [b"x" * (2 * MESSAGE_BYTES + 1), ("path", None), None, InputError("file x is bad")]

    def visit(rank: int) -> list:
        world = StoreWorld(rank, rank, 3, store)
        got = [world.share(value if rank == 0 else None) for value in values]
        arrived.append(rank)
        world.wait()
        assert sorted(arrived) == [0, 1, 2]
        world.leave()
        return got

    with ThreadPoolExecutor(3) as pool:
        for got in pool.map(visit, range(3)):
            assert got[:3] == values[:3]
            assert str(got[3]) == "file x is bad"


def test_a_world_without_an_address_is_named(monkeypatch):
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with (
        pytest.raises(
            InputError, match=r"WORLD_SIZE is 2, but .* MASTER_ADDR expected, but not set; start with torchrun"
        ),
        join_world(World(0, 0, 2)),
    ):
        pass


VISITS = """
import os, sys
from llava.errors import InputError
from llava.eval.run.world import detect_world, join_world

world = detect_world()


def visit(number):
    with join_world(world) as joined:
        import torch.distributed.nn.functional  # keep a process group, if there is one
        assert joined.share((world.rank, number)) == (0, number)
        joined.wait()


def fail():
    with join_world(world) as joined:
        raise joined.share(InputError("bad") if world.rank == 0 else None)


visit(0)
visit(1)
try:
    fail()
except InputError:
    pass
threads = [open(f"/proc/self/task/{task}/comm").read() for task in os.listdir("/proc/self/task")]
kept = {"pt_tcpstore_uv\\n"} if world.rank == 0 and os.environ["TORCHELASTIC_USE_AGENT_STORE"] == "False" else set()
assert {name for name in threads if "gloo" in name or "tcpstore" in name} == kept, threads
"""


def run_world(script: str, *, agent: bool) -> list[tuple[int, str]]:
    """Run two processes as torchrun does and return each one's status and errors.

    Without torchrun's agent the first of them keeps the store.
    """
    import torch.distributed as dist

    server = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    port = server.port
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    environment |= {"WORLD_SIZE": "2", "TORCHELASTIC_USE_AGENT_STORE": str(agent)}
    if not agent:
        del server  # lets go of the port
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script], env={**environment, "RANK": str(rank)}, stderr=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    try:
        errors = [process.communicate(timeout=120)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, text) for process, text in zip(processes, errors, strict=True)]


@pytest.mark.parametrize("agent", [True, False], ids=["agent", "first"])
def test_who_has_left_has_no_thread_that_wants_the_interpreter_and_may_come_again(agent):
    for code, errors in run_world(VISITS, agent=agent):
        assert code == 0, errors


def test_a_lost_store_is_one_line():
    script = (
        "import os\nfrom llava.errors import FailedRunError\n"
        "from llava.eval.run.world import detect_world, join_world\n"
        "world = detect_world()\n"
        "try:\n"
        "    with join_world(world) as joined:\n"
        "        joined.share(None)\n"
        "        if world.rank == 0: os._exit(7)\n"
        "        joined.wait()\n"
        "except FailedRunError as error:\n"
        "    assert 'is gone; run the same command again' in str(error)\n"
        "    os._exit(1)\n"
    )
    (first, _), (second, errors) = run_world(script, agent=False)
    assert (first, second) == (7, 1), errors


@pytest.mark.slow
def test_no_start_of_many_ends_in_an_abort(tmp_path):
    """Each start ends as a script ends that calls us as a library: through the interpreter's own end."""
    script = tmp_path / "visits.py"
    script.write_text(VISITS)
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script))
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    for _ in range(6 * ROUNDS):
        done = subprocess.run(torchrun, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
