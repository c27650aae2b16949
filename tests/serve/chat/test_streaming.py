"""Answers in pieces: nothing harmful leaves, what is harmless leaves byte for byte, and every stream ends clean."""

from __future__ import annotations

import itertools
import json
import time
from typing import Any

import httpx
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llava import Protector
from llava.constants import REFUSAL, WITHHELD
from llava.serve.chat import streaming
from tests.serve.chat.live import WordGuard, before_upstream, render_chunk, render_chunks, serve_chat
from tests.serve.chat.test_completions import TOOLS, call

HARMLESS = " ".join(f"Step {number}: knead the dough, and wait.\n" for number in range(40)) + "ä 😀\n"
LATE = HARMLESS + "Then take the poison and go on. " + HARMLESS
"""Harmful from a known place on."""


def test_a_harmless_answer_comes_out_byte_for_byte(guarded):
    streamed = guarded.stream(HARMLESS, stream_options={"include_usage": True})
    assert streamed.text() == HARMLESS
    assert (streamed.reason(), streamed.done, streamed.errors) == ("stop", True, [])
    assert streamed.choices[0]["delta"] == {"role": "assistant", "content": ""}
    assert streamed.verdict()["action"] == "passed"
    assert streamed.verdict()["inspected"] == ["content", "prompt"]
    tokens = len(HARMLESS.split())
    assert streamed.usage == {"prompt_tokens": tokens, "completion_tokens": tokens, "total_tokens": 2 * tokens}
    assert streamed.events[-1]["choices"] == []
    assert all(event["object"] == "chat.completion.chunk" and event["model"] == "echo" for event in streamed.events)


def test_it_comes_out_while_it_is_written(upstream, guarded):
    """The first words are there long before the last ones are said."""
    upstream.put("steady", parts=render_chunks(*({"content": f"word{n} "} for n in range(150))), pause=0.02)
    begun, first = time.monotonic(), None
    body = {"model": "steady", "messages": [{"role": "user", "content": "Go."}], "stream": True}
    with guarded.http.stream("POST", "/v1/chat/completions", json=body) as answer:
        for line in answer.iter_lines():
            if first is None and '"content":"word' in line:
                first = time.monotonic() - begun
    assert first < 0.75 * (time.monotonic() - begun)


def test_silence_is_filled_with_comments(upstream, guarded, monkeypatch):
    """So that no proxy takes the connection for dead; clients pass over them."""
    monkeypatch.setattr(streaming, "KEEP_ALIVE_SECONDS", 0.1)
    upstream.put("silent", parts=render_chunks({"content": "One "}, {"content": "two."}), pause=0.5)
    answer = guarded.ask(model="silent", stream=True)
    assert answer.text.count(": still there\n\n") > 3
    client: Any = openai.OpenAI(base_url=f"{guarded.url}/v1", api_key="any", max_retries=0)
    messages = [{"role": "user", "content": "Go."}]
    chunks = list(client.chat.completions.create(model="silent", messages=messages, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "One two."


@pytest.mark.parametrize("text", ["poison", LATE, HARMLESS + "poison"])
@pytest.mark.parametrize("usage", [False, True])
def test_a_harmful_answer_is_cut_before_the_harm(guarded, text, usage):
    streamed = guarded.stream(text, stream_options={"include_usage": usage})
    said = streamed.text()
    assert "poison" not in json.dumps(streamed.events)
    assert said.endswith(REFUSAL)
    shown = said.removesuffix(REFUSAL)
    assert shown == "" or (shown.endswith("\n\n") and HARMLESS.startswith(shown.removesuffix("\n\n")))
    assert (streamed.reason(), streamed.done, streamed.errors) == ("content_filter", True, [])
    assert streamed.verdict()["action"] == "refused"
    assert streamed.verdict()["harm_score"] >= 0.5
    if usage:
        # What the upstream wrote in all is what its operator pays for.
        assert streamed.usage["completion_tokens"] == len(text.split())


def test_a_cut_answer_ends_the_upstreams_work(upstream, guarded):
    before = len(upstream.log())
    text = "poison " + "word " * 400
    begun = time.monotonic()
    assert guarded.stream(text, model="slow").reason() == "content_filter"
    assert time.monotonic() - begun < 15
    wait_for(lambda: upstream.log()[before]["ended"] == "gone")


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_before_the_first_word(upstream, guarded, stream):
    before = len(upstream.log())
    upstream.put("never", parts=[" "] * 400, pause=0.05)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{guarded.url}/v1/chat/completions", json=ask_body("never", stream), timeout=0.5, trust_env=False)
    wait_for(lambda: upstream.log()[before]["ended"] == "gone")
    assert guarded.service.open_streams == 0


def test_a_client_that_goes_away_in_the_middle(upstream, guarded):
    before = len(upstream.log())
    with guarded.http.stream("POST", "/v1/chat/completions", json=ask_body("slow", True, "word " * 400)) as answer:
        next(answer.iter_bytes())
    wait_for(lambda: upstream.log()[before]["ended"] == "gone")
    wait_for(lambda: guarded.service.open_streams == 0)


def ask_body(model, stream, text="Go."):
    return {"model": model, "stream": stream, "messages": [{"role": "user", "content": text}]}


def wait_for(condition, seconds=15):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_choices_take_turns(upstream, guarded):
    texts = [HARMLESS, LATE, HARMLESS[:50]]
    pieces = [[text[place : place + 7] for place in range(0, len(text), 7)] for text in texts]
    parts = []
    for place in range(max(map(len, pieces))):
        for index, found in enumerate(pieces):
            if place < len(found):
                parts.append(render_chunk({"index": index, "delta": {"content": found[place]}, "finish_reason": None}))
            elif place == len(found):
                parts.append(render_chunk({"index": index, "delta": {}, "finish_reason": "length"}))
    upstream.put("turns", parts=[*parts, "data: [DONE]\n\n"])
    streamed = guarded.stream(model="turns", n=3)
    assert (streamed.text(0), streamed.text(2)) == (HARMLESS, HARMLESS[:50])
    assert streamed.text(1).endswith(REFUSAL)
    assert "poison" not in json.dumps(streamed.events)
    # The one that is cut off ends where the others go on.
    assert [streamed.reason(index) for index in range(3)] == ["length", "content_filter", "length"]


@settings(max_examples=15)
@given(data=st.data(), harmful=st.booleans(), size=st.integers(1, 40))
def test_chunks_cut_anywhere(upstream, guarded, data, harmful, size):
    text = LATE if harmful else HARMLESS
    events = "".join(render_chunks(*({"content": text[place : place + size]} for place in range(0, len(text), size))))
    cuts = sorted({0, len(events), *data.draw(st.lists(st.integers(0, len(events)), max_size=20))})
    upstream.put("cut", parts=[events[start:end] for start, end in itertools.pairwise(cuts)])
    streamed = guarded.stream(model="cut")
    assert streamed.done
    if harmful:
        assert "poison" not in json.dumps(streamed.events)
        assert streamed.reason() == "content_filter"
    else:
        assert (streamed.text(), streamed.reason()) == (HARMLESS, "stop")


def test_a_character_cut_in_two_by_json(upstream, guarded):
    halves = [r'{"content": "One \ud83d"}', r'{"content": "\ude00 two"}']
    choices = [f'{{"choices": [{{"index": 0, "delta": {half}}}]}}' for half in halves]
    upstream.put("halves", parts=[*(f"data: {choice}\n\n" for choice in choices), "data: [DONE]\n\n"])
    assert guarded.stream(model="halves").text() == "One 😀 two"


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning", "refusal"])
def test_thoughts_are_guarded_on_their_own(upstream, guarded, field):
    deltas = [{field: "First "}, {field: "bread. "}, {"content": "Then "}, {"content": "butter."}]
    upstream.put("thinks", parts=render_chunks(*deltas))
    streamed = guarded.stream(model="thinks")
    assert (streamed.text(field=field), streamed.text()) == ("First bread. ", "Then butter.")
    assert streamed.verdict()["inspected"] == [field, "content", "prompt"]
    deltas[1] = {field: "poison. "}
    upstream.put("thinks", parts=render_chunks(*deltas))
    streamed = guarded.stream(model="thinks")
    assert "poison" not in json.dumps(streamed.events)
    assert (streamed.text(), streamed.reason()) == ("Then butter.", "content_filter")
    upstream.put("thinks", parts=render_chunks(*deltas[:2]))
    assert guarded.stream(model="thinks").text() == REFUSAL


def cut_call(arguments, index, size=3, **fields):
    """Return the pieces of a call."""
    pieces = [arguments[place : place + size] for place in range(0, len(arguments), size)]
    first = {"index": index, **call("", **fields)}
    return [
        {"tool_calls": [first]},
        *({"tool_calls": [{"index": index, "function": {"arguments": piece}}]} for piece in pieces),
    ]


def test_calls_are_held_back_until_they_are_checked(upstream, guarded):
    bread, poison = cut_call('{"q": "bread"}', 0), cut_call('{"q": "\\u0070oison"}', 1, id="call_2")
    upstream.put("calls", parts=render_chunks({"content": "Look: "}, *bread, *poison))
    streamed = guarded.stream(model="calls", tools=TOOLS)
    (shown,) = [choice["delta"]["tool_calls"] for choice in streamed.choices if "tool_calls" in choice["delta"]]
    assert shown == [{"index": 0, **call('{"q": "bread"}')}]
    assert (streamed.text(), streamed.reason()) == ("Look: ", "content_filter")
    assert streamed.verdict()["inspected"] == ["content", "tool_calls[0]", "tool_calls[1]", "prompt"]
    upstream.put("calls", parts=render_chunks(*bread))
    streamed = guarded.stream(model="calls", tools=TOOLS)
    assert streamed.reason() == "stop"
    upstream.put("calls", parts=render_chunks(*poison))
    assert guarded.stream(model="calls", tools=TOOLS).text() == REFUSAL
    upstream.put(
        "calls",
        parts=render_chunks(
            {"function_call": {"name": "look_up", "arguments": '{"q": '}}, {"function_call": {"arguments": '"bread"}'}}
        ),
    )
    streamed = guarded.stream(model="calls", tools=TOOLS)
    (shown,) = [choice["delta"]["function_call"] for choice in streamed.choices if "function_call" in choice["delta"]]
    assert shown == {"name": "look_up", "arguments": '{"q": "bread"}'}


def test_an_answer_without_words(upstream, guarded):
    upstream.put("blank", parts=render_chunks({"content": ""}, {"content": " \n"}))
    streamed = guarded.stream(model="blank")
    assert (streamed.text(), streamed.reason(), streamed.verdict()["action"]) == (" \n", "stop", "passed")


@pytest.mark.parametrize("place", ["first", "late"])
@pytest.mark.parametrize("failure", ["exception", "nan", "timeout", "memory"])
def test_a_failing_detector_withholds(upstream, failure, place):
    text = "It will fail now." if place == "first" else HARMLESS + "It will fail now. " + HARMLESS
    with serve_chat(Protector(WordGuard(failure)), before_upstream(upstream.url), guard_timeout=0.7) as live:
        streamed = live.stream(text, stream_options={"include_usage": True})
        assert streamed.text().endswith(WITHHELD)
        assert HARMLESS.startswith(streamed.text().removesuffix(WITHHELD).removesuffix("\n\n"))
        assert (streamed.reason(), streamed.done, streamed.errors) == ("content_filter", True, [])
        assert streamed.verdict()["action"] == "withheld"
        assert streamed.usage["completion_tokens"] == len(text.split())
        assert "secret" not in json.dumps(streamed.events)
        if failure != "timeout":
            assert live.stream("Fine.").text() == "Fine."


def test_fail_open(upstream):
    with serve_chat(Protector(WordGuard("exception")), before_upstream(upstream.url), fail_open=True) as live:
        text = HARMLESS + "It will fail now."
        streamed = live.stream(text)
        assert (streamed.text(), streamed.reason()) == (text, "stop")
        assert streamed.verdict()["failed_open"] is True
        assert "poison" not in live.stream("poison").text()


def test_the_operator_may_want_streams_cut(upstream):
    with serve_chat(Protector(WordGuard()), before_upstream(upstream.url), action="block") as live:
        streamed = live.stream("poison")
        assert (streamed.text(), streamed.reason(), streamed.done) == ("", "content_filter", True)


def test_too_many_streams_are_turned_away(upstream):
    with serve_chat(Protector(WordGuard()), before_upstream(upstream.url), max_streams=2) as live:
        answer = live.ask("One.", n=3, stream=True)
        assert (answer.status_code, "retry-after" in answer.headers) == (429, True)
        assert live.stream("One.", n=2).text(1) == "One."


def test_a_cut_answer_whose_usage_nobody_says(upstream, guarded):
    upstream.put("silent", parts=render_chunks({"content": "The poison "}, {"content": "is here."}))
    streamed = guarded.stream(model="silent", stream_options={"include_usage": True})
    assert streamed.usage["completion_tokens"] > 0
    assert streamed.usage["prompt_tokens"] > 0
    assert streamed.usage["mllm_protector"] == {"estimated": True}
