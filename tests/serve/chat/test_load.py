"""Many clients at once: nobody gets another's words, nothing unguarded, and nothing is lost.

`MLLM_PROTECTOR_LOAD_SECONDS` is for how long 64 clients go on asking, `MLLM_PROTECTOR_ROUNDS` how many times as often
servers are killed (`tests/rounds.py`). With `-s` the tests print what they did.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from pathlib import Path

import httpx
import pytest

from llava import Protector
from llava.constants import REFUSAL
from tests.rounds import ROUNDS
from tests.serve.chat.live import (
    GuardProcess,
    UpstreamProcess,
    WordGuard,
    before_upstream,
    read_stream,
    serve_chat,
)

MOST_GROWTH = 32 << 20
"""Bytes by which a server's memory may grow under load: buffers, and what the allocator keeps."""
LOAD_SECONDS = float(os.environ.get("MLLM_PROTECTOR_LOAD_SECONDS", "0"))
"""Seconds for which many clients go on asking; they ask some turns in any case."""
TURNS = 6
KILLS, GUARD_KILLS = 10 * ROUNDS, 5 * ROUNDS
"""A guard takes seconds to start."""


def write_text(client: int, draw: random.Random) -> tuple[str, bool]:
    """Return what a client asks for, in words of its own, and whether it is harmful from some place on."""
    words = [f"client{client}word{place}" for place in range(draw.randint(1, 250))]
    harmful = draw.random() < 0.4
    if harmful:
        words.insert(draw.randint(0, len(words)), "poison")
    return " ".join(words), harmful


async def ask(http: httpx.AsyncClient, client: int, turns: int, until: float = 0.0) -> int:
    """Ask several times, and on until a time, streaming and not; check every answer, and return how many there were."""
    draw, turn = random.Random(client), 0
    while turn < turns or time.monotonic() < until:
        turn += 1
        text, harmful = write_text(client, draw)
        body = {"model": "echo", "messages": [{"role": "user", "content": text}]}
        tokens = len(text.split())
        if draw.random() < 0.75:
            options = {"stream": True, "stream_options": {"include_usage": True}}
            streamed = read_stream(await http.post("/v1/chat/completions", json={**body, **options}))
            assert streamed.done
            assert streamed.errors == []
            said, reason, usage = streamed.text(), streamed.reason(), streamed.usage
        else:
            answer = (await http.post("/v1/chat/completions", json=body)).json()
            (choice,) = answer["choices"]
            said, reason, usage = choice["message"]["content"], choice["finish_reason"], answer["usage"]
        assert usage["completion_tokens"] == tokens, (client, turn)
        if harmful:
            shown = said.removesuffix(REFUSAL).removesuffix("\n\n")
            assert said.endswith(REFUSAL)
            assert text.partition("poison")[0].startswith(shown)
            assert reason == "content_filter"
        else:
            assert (said, reason) == (text, "stop"), (client, turn)
    return turn


async def ask_all(url: str, clients: int, turns: int, seconds: float = 0.0) -> int:
    """Let clients ask at once, each so many turns and for so long; returns how many answers there were."""
    limits, until = httpx.Limits(max_connections=clients), time.monotonic() + seconds
    async with httpx.AsyncClient(base_url=url, timeout=300, trust_env=False, limits=limits) as http:
        return sum(await asyncio.gather(*(ask(http, client, turns, until) for client in range(clients))))


def test_sixteen_clients_at_once(guarded):
    asyncio.run(ask_all(guarded.url, 16, 3))
    assert guarded.service.open_streams == 0
    assert guarded.service.pending == 0


@pytest.mark.slow
def test_sixty_four_clients_at_once(upstream, tmp_path):
    """The server is a process of its own; its memory does not grow with what has gone through it."""
    own = GuardProcess(tmp_path, upstream.url)
    try:
        asyncio.run(ask_all(own.url, 64, TURNS))
        before, begun = measure_memory(own.process.pid), time.monotonic()
        answers = asyncio.run(ask_all(own.url, 64, 2 * TURNS, LOAD_SECONDS))
        grown = measure_memory(own.process.pid) - before
        print(
            f"{answers} answers in {time.monotonic() - begun:.0f} s; memory {before >> 20} MiB, {grown >> 10} KiB more"
        )
        assert grown < MOST_GROWTH
    finally:
        own.kill()


def measure_memory(pid: int) -> int:
    """Return the bytes of memory that a process holds."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
def test_a_guard_that_is_killed_again_and_again(upstream, tmp_path):
    """A client's connection breaks, and nothing harmful came before; after the start all is as it was."""
    own, draw = GuardProcess(tmp_path, upstream.url), random.Random(1)

    async def ask_once(http: httpx.AsyncClient, text: str) -> None:
        body = {"model": "slow", "stream": True, "messages": [{"role": "user", "content": text}]}
        received = b""
        try:
            async with http.stream("POST", "/v1/chat/completions", json=body) as answer:
                async for piece in answer.aiter_bytes():
                    received += piece
        except httpx.TransportError:
            assert b"[DONE]" not in received
        assert b"poison" not in received

    async def kill_once() -> None:
        async with httpx.AsyncClient(base_url=own.url, timeout=60, trust_env=False) as http:
            texts = ["word " * 60, "word " * 30 + "poison", "poison " * 60]
            asked = [asyncio.create_task(ask_once(http, text)) for text in texts]
            await asyncio.sleep(draw.random() * 2)
            own.kill()
            await asyncio.gather(*asked)
        own.start()
        async with httpx.AsyncClient(base_url=own.url, timeout=60, trust_env=False) as http:
            body = {"model": "echo", "messages": [{"role": "user", "content": "Still there?"}]}
            answer = await http.post("/v1/chat/completions", json=body)
            assert answer.json()["choices"][0]["message"]["content"] == "Still there?"

    for _ in range(GUARD_KILLS):
        asyncio.run(kill_once())
    print(f"the guard was killed {GUARD_KILLS} times")
    own.kill()


@pytest.mark.slow
def test_an_upstream_that_is_killed_again_and_again(tmp_path):
    """Whatever is under way ends clean, and the next request works."""
    own, draw = UpstreamProcess(tmp_path), random.Random(0)

    async def ask_once(http: httpx.AsyncClient) -> None:
        body = {"model": "slow", "stream": True, "messages": [{"role": "user", "content": "word " * 40}]}
        answer = await http.post("/v1/chat/completions", json=body)
        if answer.status_code == 200:
            streamed = read_stream(answer)
            assert streamed.done
            assert ("word " * 40).startswith(streamed.text())
            assert streamed.errors or streamed.reason() == "stop"
        else:
            assert answer.status_code == 502

    async def kill_once(url: str) -> None:
        async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as http:
            asked = [asyncio.create_task(ask_once(http)) for _ in range(6)]
            await asyncio.sleep(draw.random() * 2)
            own.kill()
            await asyncio.gather(*asked)
            own.start()
            body = {"model": "echo", "messages": [{"role": "user", "content": "Still there?"}]}
            answer = await http.post("/v1/chat/completions", json=body)
            assert answer.json()["choices"][0]["message"]["content"] == "Still there?"

    with serve_chat(Protector(WordGuard()), before_upstream(own.url)) as live:
        for _ in range(KILLS):
            asyncio.run(kill_once(live.url))
        print(f"the upstream was killed {KILLS} times")
        assert live.service.open_streams == 0
    own.kill()
