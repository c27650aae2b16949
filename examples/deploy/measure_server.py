"""Measure a running guard on your machine: responses a second and waiting times, by length of text and number of clients.

    mllm-protector serve --detector embedded & python examples/deploy/measure_server.py --pid $!

Each request asks `/classify` about one text, which no other request has asked about.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx

SENTENCE = "Mix flour, water, salt and yeast, let it rise, and bake it for forty minutes."
LENGTHS = {"short (26 tokens)": 1, "long (266 tokens)": 13}
"""What is asked about → how often the sentence stands in it; tokens as the embedded detector counts them."""


def write_texts(sentences: int) -> Iterator[str]:
    """Yield texts of one length, each with a number of its own."""
    for number in itertools.count():
        yield f"{number:06} " + " ".join([SENTENCE] * sentences)


def ask_for(seconds: float, url: str, texts: Iterator[str], times: list[float], key: str | None) -> None:
    """Ask one question after the other until the time is over; failures end the measurement."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    end = time.perf_counter() + seconds
    with httpx.Client(base_url=url, headers=headers, timeout=300, trust_env=False) as client:
        while (begun := time.perf_counter()) < end:
            client.post("/classify", json={"input": [next(texts)]}).raise_for_status()
            times.append(time.perf_counter() - begun)


def measure(seconds: float, url: str, sentences: int, clients: int, key: str | None) -> tuple[float, list[float]]:
    """Return responses a second and each response's time, with so many clients at once.

    Raises:
        RuntimeError: When a client was refused.
    """
    lock, source = threading.Lock(), write_texts(sentences)

    def take() -> Iterator[str]:
        while True:
            with lock:
                text = next(source)
            yield text

    times: list[list[float]] = [[] for _ in range(clients)]
    arguments: list[Callable[[], None]] = [
        lambda mine=mine: ask_for(seconds, url, take(), mine, key)  # type: ignore[misc]
        for mine in times
    ]
    threads = [threading.Thread(target=run) for run in arguments]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    passed = time.perf_counter() - begun
    if not all(times):
        raise RuntimeError("a client got no answer; is the server there, and the key right?")
    found = sorted(itertools.chain(*times))
    return len(found) / passed, found


def read_memory(pid: int) -> dict[str, float]:
    """Return what a process holds in memory, now and at most, in MiB (Linux)."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    values = dict(line.split(":", 1) for line in lines)
    return {name: int(values[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM")}


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
            rate, times = measure(args.seconds, args.url, sentences, clients, key)
            last = times[int(0.99 * (len(times) - 1))]
            median = statistics.median(times)
            print(f"{name}, {clients:3} clients: {rate:6.1f}/s, median {median * 1000:6.0f} ms, 99% {last * 1000:6.0f} ms")
    if args.pid is not None:
        memory = read_memory(args.pid)
        print(f"memory: {memory['VmRSS']:.0f} MiB, at most {memory['VmHWM']:.0f} MiB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
