"""Processes of a training that are forked from one which has imported everything: the same ranks without a launcher.

Importing torch, DeepSpeed and the trainer takes each started process ten seconds of processor time. Tests that compare
ways to share a training out need them often, and no launcher; others start the same trainings by each launcher.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from llava.process import end_process

TRAININGS = ("llava.train.harm_detector", "llava.train.detoxifier", "llava.train.llava")
SECONDS = 600


def find_free_port() -> str:
    """Return a port that nobody uses: other tests train beside this one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def train_in_ranks(module: str, argv: list[str], processes: int, logs: Path) -> None:
    """Run `module.main(argv)` in ranks, in the environment that torchrun gives; fail with a bad one's last words.

    Args:
        module: One of `TRAININGS`.
        argv: Its arguments.
        processes: Ranks; one runs without a process group.
        logs: Folder that gets each rank's output.
    """
    logs.mkdir(parents=True, exist_ok=True)
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": find_free_port(), "WORLD_SIZE": str(processes)}
    ranks = []
    for rank in range(processes):
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(processes)}
        more = {**shared, **own} if processes > 1 else {}
        log = logs / f"{rank}.log"
        ranks.append((log, _zygote().Process(target=_run_rank, args=(module, argv, more, str(log)))))
        ranks[-1][1].start()
    try:
        for log, process in ranks:
            process.join(SECONDS)
            assert process.exitcode == 0, f"exit code {process.exitcode}\n{log.read_text()[-3000:]}"
    finally:
        for _, process in ranks:
            process.kill()


@cache
def _zygote() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*TRAININGS, *(["deepspeed"] if find_spec("deepspeed") else [])])
    return context


def _run_rank(module: str, argv: list[str], environment: dict[str, str], log: str) -> None:
    """Be one rank, from its environment to its end as a command."""
    os.environ.update(
        environment, CUDA_VISIBLE_DEVICES="", HF_HUB_OFFLINE="1", DS_ACCELERATOR="cpu", OMP_NUM_THREADS="1"
    )
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.argv = [module, *argv]
    end_process(import_module(module).main())
