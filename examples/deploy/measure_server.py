"""Measure a running guard on your machine: responses a second and waiting times, by length and number of clients.

    mllm-protector serve --detector embedded & python examples/deploy/measure_server.py --pid $!

Each request asks `/classify` about one text, which no other request has asked about.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

SENTENCE = "Mix flour, water, salt and yeast, let it rise, and bake it for forty minutes."
LENGTHS = {"short (26 tokens)": 1, "long (266 tokens)": 13}
"""What is asked about → how often the sentence stands in it; tokens as the embedded detector counts them."""


def ask_for(seconds: float, client: httpx.Client, sentences: int, numbers: Iterator[int]) -> list[float]:
    """Ask one question after the other until the time is over, at least one; returns how long each took."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while (begun := time.perf_counter()) < end or not times:
        text = f"{next(numbers):06} " + " ".join([SENTENCE] * sentences)
        (entry,) = client.post("/classify", json={"input": [text]}).raise_for_status().json()["data"]
        if "failure" in entry:
            raise RuntimeError(f"so many clients are too many, the guard withholds: {entry['failure']}")
        times.append(time.perf_counter() - begun)
    return times


def measure(seconds: float, url: str, sentences: int, clients: int, key: str | None) -> tuple[float, list[float]]:
    """Return responses a second and each response's time, with so many clients at once.

    Raises:
        httpx.HTTPError: When the server is not there, or refuses.
        RuntimeError: When it could not judge a text in time.
    """
    numbers = itertools.count()  # the next one is taken in one step, by whichever thread
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    with (
        httpx.Client(base_url=url, headers=headers, timeout=300, limits=limits, trust_env=False) as client,
        ThreadPoolExecutor(clients) as pool,
    ):
        begun = time.perf_counter()
        tasks = [pool.submit(ask_for, seconds, client, sentences, numbers) for _ in range(clients)]
        found = sorted(itertools.chain(*(task.result() for task in tasks)))
        return len(found) / (time.perf_counter() - begun), found


def read_memory(pid: int) -> dict[str, float]:
    """Return what a process holds in memory, now and at most, in MiB (Linux)."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    values = dict(line.split(":", 1) for line in lines)
    return {name: int(values[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM")}


def read_processor_time(pid: int) -> float:
    """Return the seconds that processors have worked for a process (Linux); other programs do not change it."""
    words = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def main(argv: list[str] | None = None) -> int:
    """Measure, and print a line for each length and number of clients."""
    parser = argparse.ArgumentParser(description="Measure a running guard.")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="address of the server")
    parser.add_argument("--pid", type=int, help="its process, for its memory")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long each line takes")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32], help="clients at once")
    args = parser.parse_args(argv)
    key = os.environ.get("MLLM_PROTECTOR_API_KEY")
    measure(min(2.0, args.seconds), args.url, 1, 1, key)  # the first answers are slower
    for name, sentences in LENGTHS.items():
        for clients in args.clients:
            worked = read_processor_time(args.pid) if args.pid is not None else 0.0
            rate, times = measure(args.seconds, args.url, sentences, clients, key)
            last = times[int(0.99 * (len(times) - 1))]
            median = statistics.median(times)
            print(
                f"{name}, {clients:3} clients: {rate:6.1f}/s, median {median * 1000:6.0f} ms, 99% {last * 1000:6.0f} ms"
            )
            if args.pid is not None:
                each = (read_processor_time(args.pid) - worked) / len(times)
                print(f"    processor time for each: {each * 1000:.0f} ms")
    if args.pid is not None:
        memory = read_memory(args.pid)
        print(f"memory: {memory['VmRSS']:.0f} MiB, at most {memory['VmHWM']:.0f} MiB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
