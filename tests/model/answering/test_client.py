"""The client of a served model: patience with a busy server, a clear end with a dead one."""

from __future__ import annotations

import base64
import io
import socket
import threading
import time

import pytest
from PIL import Image

from llava.errors import InputError
from llava.model.answering.client import ChatClient, EndpointError, build_content
from llava.model.answering.replies import Answer
from tests.model.chat_server import ChatServer, connect, echo


@pytest.mark.parametrize("status", [429, 500, 503, 522])
def test_a_busy_server_is_asked_again(status):
    with ChatServer(echo, failures=[(status, {}), (status, {})]) as server:
        assert connect(server).complete("hello", max_tokens=5) == Answer("you said hello")
        assert len(server.requests) == 3


def test_the_wait_is_what_the_server_asks_for():
    with ChatServer(echo, failures=[(429, {"Retry-After": "0.4"})]) as server:
        start = time.perf_counter()
        connect(server).complete("hello", max_tokens=5)
        assert time.perf_counter() - start >= 0.4  # and never earlier


@pytest.mark.parametrize("asked", [3, 60])
def test_chance_comes_on_top_of_what_the_server_asks_for(monkeypatch, asked):
    waits: list[float] = []
    ended = threading.Event()
    monkeypatch.setattr(ended, "wait", waits.append)
    with ChatServer(echo, failures=[(429, {"Retry-After": str(asked)})] * 5) as server:
        ChatClient(server.url, "tiny").complete("hello", max_tokens=5, ended=ended)
    assert len(waits) == 5
    assert len(set(waits)) > 1
    assert all(max(asked, 2**attempt) <= wait <= 1.25 * max(asked, 2**attempt) for attempt, wait in enumerate(waits))


def test_a_server_that_asks_for_a_long_wait_ends_the_work_with_a_line():
    with ChatServer(echo, failures=[(429, {"Retry-After": "3600"})]) as server:
        with pytest.raises(EndpointError, match=r"asks to come back in 3,600 s \(status 429: failure 429\)"):
            connect(server).complete("hello", max_tokens=5)
        assert len(server.requests) == 1


def test_an_error_in_a_reply_that_http_calls_fine_is_tried_again_and_keeps_its_words():
    broken = {"error": {"message": "Internal overload, try later", "code": 500}}
    with ChatServer(echo, failures=[(200, {}, broken)] * 2) as server:
        assert connect(server).complete("hello", max_tokens=5) == Answer("you said hello")
        assert len(server.requests) == 3
    with ChatServer(lambda request: broken) as server:
        with pytest.raises(EndpointError, match=r"in 6 tries \(status 500: Internal overload, try later\)"):
            connect(server).complete("hello", max_tokens=5)
        assert len(server.requests) == 6


def test_no_choice_turns_one_question_down_but_not_all():
    def answer(request: dict) -> dict | str:
        return {"choices": []} if request["messages"][0]["content"] == "bad" else echo(request)

    with ChatServer(answer) as server:
        assert "gave no choice" in connect(server).ask("bad", max_tokens=5).refusal
    with ChatServer(lambda request: {"choices": []}) as server, pytest.raises(InputError, match="a harmless one"):
        connect(server).ask("bad", max_tokens=5)


def test_a_redirection_is_said():
    moved = {"Location": "https://me:secret@elsewhere/v1"}
    told = pytest.raises(InputError, match=r"it sends to https://elsewhere/v1; give that address")
    with ChatServer(echo, failures=[(307, moved)]) as server, told:
        connect(server).complete("hello", max_tokens=5)


def test_a_server_that_stays_down_ends_the_work_with_a_line():
    with ChatServer(echo) as server:
        client = connect(server)
    with pytest.raises(EndpointError, match=r"gave no answer in 6 tries \(.*refused"):
        client.complete("a", max_tokens=5)


@pytest.mark.parametrize(
    ("status", "message"), [(400, "refused the request"), (404, "check --model, or the address, which ends in /v1")]
)
def test_a_request_that_is_refused_is_not_repeated(status, message):
    with ChatServer(echo, failures=[(status, {})]) as server:
        with pytest.raises(InputError, match=message):
            connect(server).complete("hello", max_tokens=5)
        assert len(server.requests) == 1


def test_a_refused_key_names_the_variable(monkeypatch):
    monkeypatch.setenv("MY_KEY", "secret")
    with ChatServer(echo, failures=[(401, {})]) as server:
        client = ChatClient(server.url, "tiny", api_key_variable="MY_KEY")
        with pytest.raises(InputError, match="set MY_KEY") as caught:
            client.complete("hello", max_tokens=5)
        client.check()
        assert server.keys == ["Bearer secret"] * 2
    assert "secret" not in str(caught.value)


def test_an_answer_that_was_held_back_is_empty():
    with ChatServer(lambda request: None) as server:
        assert connect(server).complete("hello", max_tokens=5) == Answer("")


def test_half_of_a_surrogate_pair_does_not_get_through():
    with ChatServer(lambda request: "a\ud800b") as server:
        assert connect(server).complete("hello", max_tokens=5) == Answer("a\ufffdb")


def test_a_server_is_checked_before_the_work():
    with ChatServer(echo) as server:
        connect(server).check()
        with pytest.raises(InputError, match="has no model other; it has tiny"):
            ChatClient(server.url, "other").check()
        server.models = None
        connect(server).check()
    with pytest.raises(InputError, match="cannot be reached"):
        connect(server).check()


def test_a_server_that_says_nothing_is_not_waited_for():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        client = ChatClient(f"http://127.0.0.1:{silent.getsockname()[1]}/v1", "tiny", timeout=0.2, first_wait=0.01)
        with pytest.raises(InputError, match="cannot be reached"):
            client.check()
        with pytest.raises(EndpointError, match=r"in 2 tries \(none within 0\.2 s; see --request-timeout\)"):
            client.complete("hello", max_tokens=5)


def test_a_refused_question_is_an_answer_once_the_server_has_shown_that_it_answers():
    def refuse(request: dict) -> int | None:
        return 400 if request["messages"][0]["content"] == "bad" else None

    with ChatServer(echo, refuse=refuse) as server:
        client = connect(server)
        first = client.ask("bad", max_tokens=5, temperature=0.5)
        assert first.text == ""
        assert "status 400: failure 400" in first.refusal
        bad, probe = server.requests
        assert {**probe, "messages": None} == {**bad, "messages": None}  # asked with the same options
        assert client.ask("bad", max_tokens=5) == first
        assert client.ask("good", max_tokens=5) == Answer("you said good")
        assert len(server.requests) == 4  # and asked only once


def test_a_server_that_refuses_a_harmless_question_too_is_refused():
    with ChatServer(echo, refuse=lambda request: 422) as server:
        with pytest.raises(InputError, match=r"status 422.*so it did a harmless one with the same options"):
            connect(server).ask("hello", max_tokens=5)
        with pytest.raises(InputError, match="so it did a harmless one with a picture"):
            connect(server).ask(build_content("hello", Image.new("RGB", (8, 8))), max_tokens=5)


def test_nothing_is_tried_again_once_the_work_has_ended():
    ended = threading.Event()
    ended.set()
    with ChatServer(echo, failures=[(503, {})] * 3) as server:
        with pytest.raises(EndpointError, match="gave no answer in 1 try"):
            ChatClient(server.url, "tiny").complete("hello", max_tokens=5, ended=ended)
        assert len(server.requests) == 1


@pytest.mark.parametrize("address", ["127.0.0.1:8000", "file:///etc/passwd", "http://", ""])
def test_an_address_that_is_none_is_refused(address):
    with pytest.raises(InputError, match="is no address"):
        ChatClient(address, "tiny")


def test_an_image_goes_before_its_text_and_loses_nothing():
    image = Image.effect_noise((9, 7), 90).convert("RGB")
    picture, text = build_content("what is it?", image)
    assert text == {"type": "text", "text": "what is it?"}
    data = base64.b64decode(picture["image_url"]["url"].partition(",")[2])
    assert Image.open(io.BytesIO(data)).tobytes() == image.tobytes()
