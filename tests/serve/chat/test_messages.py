"""Requests are read strictly; what could not be guarded is refused by its name."""

from __future__ import annotations

import pytest

from llava.serve.chat.messages import MOST_CHOICES, parse_chat
from llava.serve.errors import ApiError

USER = {"role": "user", "content": "Hi."}
URL = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


def request(**fields):
    return {"model": "m", "messages": [USER], **fields}


def test_every_turn_and_part_is_read():
    messages = [
        {"role": "developer", "content": "Be short."},
        {"role": "user", "content": [{"type": "text", "text": "See"}, URL, {"type": "text", "text": "this."}]},
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "tool", "content": "42", "tool_call_id": "c"},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
        {"role": "user", "content": [{"type": "image_url", "image_url": "data:image/png;base64,AAAA"}]},
        USER,
    ]
    chat = parse_chat(request(messages=messages))
    assert [turn.role for turn in chat.turns] == [message["role"] for message in messages]
    assert chat.prompt == "See\nthis.\n\nHi."
    assert [image.url for image in chat.images] == ["data:image/png;base64,AAAA"] * 2
    # Both forms of an image go on in the one that every server knows.
    assert chat.body["messages"][5]["content"][0]["image_url"] == {"url": "data:image/png;base64,AAAA"}


def test_an_answer_that_the_client_began_is_part_of_the_question():
    begun = {"role": "assistant", "content": "Sure, take"}
    assert parse_chat(request(messages=[USER, begun])).prompt == "Hi.\n\nSure, take"
    assert parse_chat(request(messages=[USER, begun, USER])).prompt == "Hi.\n\nHi."


def test_options():
    tools = [{"type": "function", "function": {"name": "f"}}, {"type": "custom", "custom": {"name": "g"}}]
    chat = parse_chat(request(n=2, stop="x", max_completion_tokens=5, temperature=0, seed=1, tools=tools, top_p=0.5))
    assert (chat.choices, chat.stop, chat.max_tokens, chat.temperature, chat.seed) == (2, ("x",), 5, 0, 1)
    assert (chat.tool_names, chat.stream, chat.top_p) == ({"f", "g"}, False, 0.5)
    nulls = dict.fromkeys(["n", "stop", "max_tokens", "temperature", "stream", "stream_options", "tools", "seed"])
    chat = parse_chat(request(**nulls))
    assert (chat.choices, chat.stop, chat.max_tokens, chat.temperature, chat.stream) == (1, (), None, None, False)
    assert parse_chat(request(stream=True, stream_options={"include_usage": True})).include_usage
    assert parse_chat(request(max_tokens=5, max_completion_tokens=5)).max_tokens == 5


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ([], "a list"),
        ({}, "'messages'"),
        (request(messages=[]), "0 messages"),
        (request(messages="Hi"), "'messages'"),
        (request(messages=["Hi"]), "message 1"),
        (request(messages=[{"content": "Hi"}]), "'role'"),
        (request(messages=[{"role": "robot", "content": "Hi"}]), "'robot'"),
        (request(messages=[{"role": "user"}]), "'content'"),
        (request(messages=[{"role": "user", "content": 1}]), "'content'"),
        (request(messages=[USER, {"role": "user", "content": [{"text": "x"}]}]), "message 2, part 1"),
        (request(messages=[{"role": "user", "content": [{"type": "text", "text": 1}]}]), "'text'"),
        (request(messages=[{"role": "user", "content": [{"type": "input_audio"}]}]), "'input_audio'"),
        (request(messages=[{"role": "user", "content": [{"type": "video_url"}]}]), "'video_url'"),
        (request(messages=[{"role": "user", "content": [{"type": "image_url"}]}]), "'image_url'"),
        (request(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]), "'url'"),
        (request(messages=[{"role": "system", "content": [URL]}]), "role system"),
        (request(n=0), "'n'"),
        (request(n=MOST_CHOICES + 1), "'n'"),
        (request(n="2"), "'n'"),
        (request(n=True), "'n'"),
        (request(stop=[""]), "'stop'"),
        (request(stop=["x"] * 17), "'stop'"),
        (request(stop=5), "'stop'"),
        (request(max_tokens=0), "'max_tokens'"),
        (request(max_tokens=1, max_completion_tokens=2), "differ"),
        (request(temperature=-1), "'temperature'"),
        (request(temperature=float("nan")), "'temperature'"),
        (request(stream="yes"), "'stream'"),
        (request(stream_options=[]), "'stream_options'"),
        (request(model=5), "'model'"),
        (request(tools=[{}]), "tool 1"),
        (request(tools=[{"type": "function", "function": {}}]), "'name'"),
        (request(modalities=["text", "audio"]), "'modalities'"),
        (request(audio={"voice": "x"}), "'audio'"),
        (request(stream=True, logprobs=True), "'logprobs'"),
    ],
)
def test_what_is_wrong_is_named(body, words):
    with pytest.raises(ApiError, match=words) as caught:
        parse_chat(body)
    assert caught.value.status == 400
