"""The page as Gradio has it: nothing open that no button needs, and no image from anywhere but an upload."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from llava import Protector
from llava.serve.terminal.speakers import RemoteSpeaker
from llava.serve.web.answering import Answering
from llava.serve.web.page import (
    EXAMPLES,
    ask_with,
    build_page,
    finish_with,
    judge_with,
    keep_uploads_alone,
    place_example,
)
from tests.serve.chat.live import WordGuard

gradio = pytest.importorskip("gradio", reason="gradio is not installed; pip install 'mllm-protector[demo]'")


@pytest.fixture
def asker(upstream, monkeypatch, tmp_path):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    speaker = RemoteSpeaker(upstream.url, None, "echo", max_new_tokens=8, temperature=0)
    return Answering(speaker, Protector(WordGuard()))


def test_nothing_is_offered_to_other_programs(asker):
    page = build_page(asker, 3)
    assert page.get_api_info()["named_endpoints"] == {}
    assert page.analytics_enabled is False
    assert page.max_size if hasattr(page, "max_size") else page._queue.max_size == 3
    ours = [event for event in page.fns.values() if event.name in ("ask", "judge", "finish")]
    assert len(ours) == 4
    assert [event.concurrency_limit for event in ours if event.name == "ask"] == [1]


def test_what_the_events_give(asker):
    *_, (exchange, verdict, unguarded, guarded, plot) = ask_with(asker)("Take the poison.", None, 0.5)
    assert exchange.raw == "Take the poison."
    assert "mp-refused" in verdict
    assert "mp-masked" in unguarded
    assert "poison" not in guarded
    assert "threshold 0.50" in plot
    *_, moved = judge_with(asker)(exchange, 0.95)
    assert "mp-passed" in moved[1]
    assert exchange.threshold == 0.5  # a visitor's exchange is never changed, only replaced
    skipped = gradio.skip()
    for nothing in (judge_with(asker)(exchange, 0.5), judge_with(asker)(None, 0.5)):
        assert list(nothing) == [(skipped,) * 5]
    assert finish_with(asker)(exchange) == (skipped,) * 5


def test_an_address_is_not_fetched(asker, tmp_path):
    image = gradio.Image(type="filepath")
    keep_uploads_alone(image)
    for address in ("http://127.0.0.1:9/a.png", "https://example.org/a.png"):
        with pytest.raises(gradio.Error, match="addresses are not fetched"):
            asyncio.run(image.async_move_resource_to_block_cache(address))
    assert asyncio.run(image.async_move_resource_to_block_cache(None)) is None


def test_the_examples_are_there():
    for example in EXAMPLES:
        image, question = place_example(*example)
        assert question
        if image:
            assert Path(image).read_bytes().startswith(b"\xff\xd8")
