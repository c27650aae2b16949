"""Servers that take not every parameter, and list their models under longer names."""

from __future__ import annotations

import pytest

from llava.errors import InputError
from llava.model.answering.client import ChatClient, RefusedRequestError
from llava.model.answering.dialects import Dialect, same_model
from llava.model.answering.replies import Answer
from tests.model.chat_server import ChatServer, connect, echo

LIMIT = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
GREEDY = "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) value is supported."


def refuse_as_reasoning_models_do(request: dict) -> tuple | None:
    for name, words in (("max_tokens", LIMIT), ("temperature", GREEDY)):
        if name in request:
            return 400, {}, {"error": {"message": words, "param": name, "code": "unsupported_parameter"}}
    return None


def test_a_server_is_asked_as_it_wants_and_that_is_remembered_and_said(caplog):
    with ChatServer(echo, refuse=refuse_as_reasoning_models_do) as server:
        client = connect(server)
        assert client.ask("hello", max_tokens=5, seed=7) == Answer("you said hello")
        assert len(server.requests) == 3
        assert client.ask("again", max_tokens=6) == Answer("you said again")
    last = server.requests[3]
    assert last["max_completion_tokens"] == 6
    assert not {"max_tokens", "temperature"} & set(last)
    assert server.requests[2]["seed"] == 7
    (note,) = client.notes
    assert "takes no temperature; it was left out" in note
    assert caplog.messages == client.notes


def test_words_about_the_question_change_nothing_for_good():
    body = {"error": {"message": "what you say of temperature is not allowed"}}

    def refuse(request: dict) -> tuple | None:
        return (400, {}, body) if request["messages"][0]["content"] == "bad" else None

    with ChatServer(echo, refuse=refuse) as server:
        client = connect(server)
        with pytest.raises(RefusedRequestError, match="what you say of temperature"):
            client.complete("bad", max_tokens=5)
        assert client.dialect == Dialect()
        assert client.notes == []
        client.complete("good", max_tokens=5)
        assert server.requests[-1]["temperature"] == 0


@pytest.mark.parametrize(
    ("asked", "listed"),
    [("tiny", "models/tiny"), ("models/tiny", "tiny"), ("llava", "llava:latest"), ("Tiny", "tiny"), ("a", "a")],
)
def test_one_model_under_two_names(asked, listed):
    assert same_model(asked, listed)
    with ChatServer(echo) as server:
        server.models = ["other", listed]
        ChatClient(server.url, asked).check()


@pytest.mark.parametrize(("asked", "listed"), [("llava", "llava:13b"), ("tiny", "org/tiny"), ("tiny", "tiny-2")])
def test_two_models(asked, listed):
    assert not same_model(asked, listed)
    with ChatServer(echo) as server:
        server.models = [listed]
        with pytest.raises(InputError, match=f"has no model {asked}; it has {listed}"):
            ChatClient(server.url, asked).check()
