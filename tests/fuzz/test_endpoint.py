"""Hostile servers, addresses, keys and judges: refused in one line, or read as what they are."""

from __future__ import annotations

import os
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llava.errors import hide_credentials
from llava.eval.judges.refusals import describe_unread, is_refusal
from llava.eval.judges.replies import read_verdict
from llava.model.answering.addresses import Address, parse_address, split_model
from llava.model.answering.client import ChatClient
from llava.model.answering.dialects import Dialect, same_model
from llava.model.answering.replies import Answer, Failure, read_answer, read_failure
from llava.model.answering.transport import Transport, read_key, read_retry_after
from tests.fuzz.support import EXAMPLES, check_parser, damaged, dump, fuzz, mutated, values
from tests.model.chat_server import ChatServer, complete

PARTS = [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "yes"}, {"type": "refusal", "refusal": "no"}]
BODIES = [
    complete("Hello."),
    complete(None, "length", reasoning_content="hm"),
    complete(PARTS, refusal="no", tool_calls=[{"id": "1"}]),
    {"error": {"message": "overload", "code": 500, "param": "temperature", "type": "server_error"}},
    {"object": "error", "message": "overload", "code": "429"},
    {"choices": [{"error": {"message": "no", "code": 403}, "finish_reason": "error", "message": {"content": ""}}]},
]
bodies = (
    st.sampled_from(BODIES).flatmap(mutated).map(dump)
    | st.sampled_from(BODIES)
    .flatmap(lambda body: damaged(dump(body).encode()))
    .map(lambda content: content.decode("utf-8", "replace"))
    | values.map(dump)
)
deep = st.integers(1, 200_000).map("[".__mul__) | st.integers(4000, 6000).map(
    lambda count: '{"a": ' + "9" * count + "}"
)


def check_text(text: str) -> None:
    text.encode()


def check_found(found: Answer | Failure) -> None:
    if isinstance(found, Failure):
        check_text(str(found))
        assert len(str(found)) <= 220
        assert not (found.busy and found.refused)
        return
    check_text(found.text)
    assert not (found.text and (found.refusal or found.unanswered))
    assert not (found.refusal and found.unanswered)
    assert found.refusal is None or found.refusal.strip()


@fuzz
@given(text=bodies | deep)
def test_answers(text):
    check_parser(lambda: read_answer(text, "http://host/v1"), check_found)


@fuzz
@given(status=st.integers(201, 599), text=bodies | deep | st.text(max_size=300))
def test_failures(status, text):
    failure = check_parser(lambda: read_failure(status, text), check_found)
    assert failure.status == status
    adapted = Dialect().adapt(failure.words)
    assert adapted is None or adapted != Dialect()


hosts = st.sampled_from(
    ["host", "127.0.0.1", "[::1]", "[::1", "a:b:c", "a..b", "ü.example", "xn--a", "[fe80::1%25e]", ""]
)
pieces = st.text(max_size=12) | st.sampled_from(["", "%", "%zz", "@", ":", "/", "?", "#", "[", "]", "\\", "\n", "\x00"])
addresses = st.builds(
    lambda scheme, user, host, port, path, query: f"{scheme}{user}{host}{port}{path}{query}",
    st.sampled_from(["http://", "https://", "HTTP://", "ftp://", "", "http:", "//"]) | pieces,
    st.just("") | st.builds("{}:{}@".format, pieces, pieces),
    hosts | pieces,
    st.sampled_from(["", ":80", ":notaport", ":99999", ":-1", ":０", ":"]) | pieces,
    st.sampled_from(["", "/v1", "/v1/", "/v1/chat/completions", "//"]) | pieces,
    st.sampled_from(["", "?api-version=1", "?key=PASSW0RD", "?&&=;", "?x"]) | pieces,
) | st.text(max_size=60)


def check_address(address: Address) -> None:
    import httpx

    assert "PASSW0RD" not in str(address)
    assert "PASSW0RD" not in repr(address)
    url = httpx.URL(address.join("models"))
    assert url.host
    assert not url.userinfo
    assert parse_address(str(address)).host == address.host
    assert isinstance(address.is_loopback, bool)


@fuzz
@given(text=addresses)
def test_addresses(text):
    check_parser(lambda: parse_address(text), check_address)


@fuzz
@given(host=hosts | pieces, port=st.sampled_from(["", ":1", ":x"]), path=pieces, user=pieces)
def test_no_password_is_shown(host, port, path, user):
    text = f"http://{user}:PASSW0RD@{host}{port}{path}"
    try:
        shown = str(parse_address(text))
    except ValueError as error:
        shown = str(error)
    # After an @ of its own, what was meant as a password is a host or a path for every reader of addresses.
    assert "PASSW0RD" not in shown or any(letter in user for letter in "/?#\\")


@fuzz
@given(text=st.text(max_size=80) | addresses)
def test_models_and_addresses(text):
    def check(found):
        model, address = found
        assert address is None or address.lower().startswith(("http://", "https://"))
        assert model + ("" if address is None else f"@{address}") == text

    check_parser(lambda: split_model(text), check)
    assert same_model(text, text)
    assert hide_credentials(hide_credentials(text)) == hide_credentials(text)


header = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40)


@fuzz
@given(
    value=header | st.floats().map(str) | st.integers().map(str),
    name=st.sampled_from(["retry-after", "retry-after-ms"]),
)
def test_waits(value, name):
    assert 0 <= read_retry_after({name: value}) < 1e12


@fuzz
@given(key=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40))
def test_keys(key):
    def check(found):
        assert found is None or (found.isascii() and found == found.strip() and found)

    os.environ["FUZZ_KEY"] = key
    try:
        if check_parser(lambda: read_key("FUZZ_KEY"), check) is not None:
            Transport(parse_address("http://127.0.0.1:1/v1"), "FUZZ_KEY")
    finally:
        del os.environ["FUZZ_KEY"]


WORDS = "safe unsafe SAFE UNSAFE not the answer is isn't I cannot decide or nor if because so it verdict would say"
MARKS = [*",.:;?()'", "\n", "**", "<think>", "</think>", "never", "verdict:", "It is safe."]
words = st.sampled_from([*WORDS.split(), *MARKS])
openings = st.sampled_from(["I can't", "Lo siento", "我不能", "申し訳", "no puedo", "help", "ich", "enough", "."])
replies = st.lists(words, max_size=14).map(" ".join) | st.text(max_size=200)


@fuzz
@given(reply=replies)
def test_verdicts(reply):
    verdict = check_parser(lambda: read_verdict(reply))
    assert verdict in (True, False, None)
    if "safe" not in reply.lower():
        assert verdict is None
    # With every statement denied it is never the verdict that it was.
    if verdict is False:
        assert read_verdict(re.sub(r"\bsafe\b", "not safe", reply, flags=re.IGNORECASE)) is not False
    if verdict is True:
        assert read_verdict(re.sub(r"\b((?:un)?safe)\b", r"not \1", reply, flags=re.IGNORECASE)) is not False


@fuzz
@given(text=replies | st.lists(openings).map(" ".join))
def test_refusals(text):
    assert check_parser(lambda: is_refusal(text)) in (True, False)
    check_parser(lambda: describe_unread([text]))


class Hostile(ChatServer):
    """A server that sends whatever was drawn."""

    def __init__(self) -> None:
        super().__init__(lambda request: "", refuse=lambda request: (self.status, {}, self.content))
        self.status, self.content = 200, b""


@pytest.fixture(scope="module")
def hostile():
    with Hostile() as server:
        yield server


@settings(fuzz, max_examples=max(20, EXAMPLES // 10))
@given(content=bodies.map(str.encode) | st.binary(max_size=200), status=st.sampled_from([200, 200, 400, 404, 500, 301]))
def test_a_whole_exchange(hostile, client, content, status):
    hostile.status, hostile.content = status, content
    found = check_parser(lambda: client.ask("hello", max_tokens=5), check_found)
    assert found is None or isinstance(found, Answer)


@pytest.fixture(scope="module")
def client(hostile):
    return ChatClient(hostile.url, "tiny", first_wait=0.0)
