"""Many clients at once: nobody gets another's words, nothing unguarded, and nothing is lost."""

from __future__ import annotations

import asyncio
import random

import httpx
import pytest

from llava import Protector
from llava.constants import REFUSAL
from tests.serve.chat.live import WordGuard, before_upstream, read_stream, serve_chat


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
def test_sixty_four_clients_at_once(upstream):
    with serve_chat(Protector(WordGuard()), before_upstream(upstream.url)) as live:
        asyncio.run(ask_all(live.url, 64, 12))
        assert live.service.open_streams == 0


@pytest.mark.slow
def test_an_upstream_that_is_killed_again_and_again(tmp_path):
    """Whatever is under way ends clean, and the next request works."""
    from tests.serve.chat.live import UpstreamProcess

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
        for _ in range(20):
            asyncio.run(kill_once(live.url))
        assert live.service.open_streams == 0
    own.kill()
