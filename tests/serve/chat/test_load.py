"""Many clients at once: nobody gets another's words, nothing unguarded, and nothing is lost."""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

import httpx
import pytest

from llava import Protector
from llava.constants import REFUSAL
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
KILLS, GUARD_KILLS = 10, 5
"""A guard takes seconds to start."""


def write_text(client: int, draw: random.Random) -> tuple[str, bool]:
    """Return what a client asks for, in words of its own, and whether it is harmful from some place on."""
    words = [f"client{client}word{place}" for place in range(draw.randint(1, 250))]
    harmful = draw.random() < 0.4
    if harmful:
        words.insert(draw.randint(0, len(words)), "poison")
    return " ".join(words), harmful


async def ask(http: httpx.AsyncClient, client: int, turns: int) -> None:
    """Ask several times, streaming and not, and check every answer."""
    draw = random.Random(client)
    for turn in range(turns):
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


async def ask_all(url: str, clients: int, turns: int) -> None:
    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(base_url=url, timeout=300, trust_env=False, limits=limits) as http:
        await asyncio.gather(*(ask(http, client, turns) for client in range(clients)))


def test_sixteen_clients_at_once(guarded):
    asyncio.run(ask_all(guarded.url, 16, 3))
    assert guarded.service.open_streams == 0
    assert guarded.service.pending == 0


@pytest.mark.slow
def test_sixty_four_clients_at_once(upstream, tmp_path):
    """The server is a process of its own; its memory does not grow with what has gone through it."""
    own = GuardProcess(tmp_path, upstream.url)
    try:
        asyncio.run(ask_all(own.url, 64, 6))
        before = measure_memory(own.process.pid)
        asyncio.run(ask_all(own.url, 64, 12))
        assert measure_memory(own.process.pid) - before < MOST_GROWTH
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
        assert live.service.open_streams == 0
    own.kill()
