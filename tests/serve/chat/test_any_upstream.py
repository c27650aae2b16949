"""Whatever an upstream sends: no sentence that was not judged gets out, and nothing but a clean error is raised."""

from __future__ import annotations

import asyncio
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llava import Protector
from llava.serve.chat.completions import clean_logprobs, guard_completion
from llava.serve.chat.guarding import AnswerGuard
from llava.serve.chat.messages import parse_chat
from llava.serve.chat.sse import EventParser
from llava.serve.chat.streaming import StreamedAnswer
from llava.serve.errors import ApiError
from llava.serve.service import GuardService
from tests.serve.chat.live import WordGuard

HARM = "take the poison"
NAMES = st.sampled_from(
    [
        *("content", "reasoning", "refusal", "tool_calls", "function_call", "function", "name", "arguments", "id"),
        *("type", "text", "role", "index", "logprobs", "token", "audio", "usage", "finish_reason", "delta", "message"),
        *("choices", "custom", "input", "annotations", "top_logprobs", "completion_tokens", HARM),
    ]
)
LEAVES = st.sampled_from([None, True, 0, 1, -1, 2.5, "", "a word", HARM, json.dumps({"a": HARM}), "function", "text"])
ANY = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=12
)
CHOICE = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(["index", "message", "delta", "finish_reason", "logprobs"], ANY)
)
BODY = ANY | st.fixed_dictionaries(
    {"choices": st.lists(CHOICE | ANY, max_size=3)},
    optional=dict.fromkeys(["id", "model", "usage", "error", "system_fingerprint", "created"], ANY),
)


@pytest.fixture(scope="module")
def service():
    service = GuardService(Protector(WordGuard()))
    yield service
    service.stop()


class Chunks:
    """Chunks as an upstream sent them."""

    def __init__(self, chunks):
        self.chunks = chunks

    async def __aiter__(self):
        for chunk in self.chunks:
            yield chunk

    def drop(self, index):
        pass

    async def aclose(self):
        pass


def ask(**fields):
    return parse_chat({"messages": [{"role": "user", "content": "Why?"}], "n": 3, **fields})


@settings(max_examples=80)
@given(body=BODY)
def test_whole_answers(service, body):
    if not isinstance(body, dict):
        return  # the upstream's reader refuses it
    status = 200
    try:
        answer = asyncio.run(guard_completion(body, AnswerGuard(service, ask())))
    except ApiError as error:
        status, answer = error.status, error.to_dict()
    assert status in (200, 502)
    assert HARM not in json.dumps(answer)


@settings(max_examples=80)
@given(chunks=st.lists(BODY.filter(lambda body: isinstance(body, dict)), max_size=4), usage=st.booleans())
def test_streams(service, chunks, usage):
    guard = AnswerGuard(service, ask(stream=True, stream_options={"include_usage": usage}))

    async def read() -> bytes:
        answer = StreamedAnswer(Chunks(chunks), guard, 20)
        try:
            await answer.begin()
            return b"".join([event async for event in answer.events()])
        except ApiError as error:
            return f"data: {json.dumps(error.to_dict())}\n\ndata: [DONE]\n\n".encode()
        finally:
            await answer.close()

    received = asyncio.run(read())
    events = EventParser().feed(received)
    assert events[-1] == "[DONE]"
    assert HARM not in received.decode()
    shown = [json.loads(event) for event in events[:-1]]
    assert all(event["error"]["code"] == "upstream_error" for event in shown if "error" in event)
    assert service.open_streams == 0


@settings(max_examples=80)
@given(body=ANY | st.fixed_dictionaries({"messages": st.lists(ANY, max_size=2)}))
def test_requests(body):
    status, words = 200, ""
    try:
        parse_chat(body)
    except ApiError as error:
        status, words = error.status, str(error)
    assert status in (200, 400)
    assert words.isprintable()


def test_probabilities_show_the_answer_and_nothing_else():
    tokens = [{"token": "a ", "logprob": -1, "top_logprobs": [{"token": "b", "logprob": -2}, {"token": "x" * 99}]}]
    kept = {"token": "a ", "logprob": -1, "top_logprobs": [{"token": "b", "logprob": -2}]}
    assert clean_logprobs({"content": tokens, "refusal": HARM}, "a ") == {"content": [kept]}
    assert clean_logprobs({"content": tokens}, "a") is None
    assert clean_logprobs({"content": [{"token": HARM}]}, "a ") is None
    assert clean_logprobs(HARM, "") is None
