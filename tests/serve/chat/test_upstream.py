"""What an upstream does wrong becomes a clean error; what a client sends goes on to it as it is, its key does not."""

from __future__ import annotations

import json
import time

import pytest

from llava import Protector
from llava.errors import InputError
from llava.serve.chat.upstream import Upstream
from tests.serve.chat.live import (
    UpstreamProcess,
    WordGuard,
    before_upstream,
    render_chunk,
    render_chunks,
    serve_chat,
)


def test_the_request_goes_on_as_it_is_and_the_key_does_not(upstream, guarded):
    fields = {"model": "echo", "top_k": 5, "extra": {"a": [1]}, "stop": ["x"], "max_tokens": 3, "user": "me"}
    before = len(upstream.log())
    guarded.http.headers["Authorization"] = "Bearer client-key"
    guarded.ask("Hi.", **fields)
    del guarded.http.headers["Authorization"]
    (entry,) = upstream.log()[before:]
    assert entry["body"] == {"messages": [{"role": "user", "content": "Hi."}], **fields}
    assert entry["path"] == "/v1/chat/completions"
    headers = {name.lower(): value for name, value in entry["headers"].items()}
    assert headers["authorization"] == "Bearer upstream-key"
    assert "client-key" not in json.dumps(entry)


def test_a_stream_asks_for_usage_whatever_the_client_wants(upstream, guarded):
    before = len(upstream.log())
    streamed = guarded.stream("Hi.")
    assert upstream.log()[before]["body"]["stream_options"] == {"include_usage": True}
    assert streamed.usage is None


def test_a_whole_answer_leaves_its_connection_open(upstream, guarded):
    """The upstream is not told that somebody went away, and the next request takes the same connection."""
    before = len(upstream.log())
    for usage in (False, True):
        guarded.stream("One two.", stream_options={"include_usage": usage})
    guarded.ask("Three.")
    entries = upstream.log()[before:]
    assert [entry["ended"] for entry in entries] == ["done"] * 3
    assert len({entry["client"] for entry in entries}) == 1


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("script", "status", "words"),
    [
        ({"status": 400, "parts": ['{"error": {"message": "too long", "type": "t", "code": "c"}}']}, 400, "too long"),
        ({"status": 404, "parts": ['{"detail": "no such model"}']}, 404, "no such model"),
        ({"status": 422, "parts": ["no JSON"]}, 422, "status 422"),
        ({"status": 401, "parts": ['{"error": "bad upstream-key"}']}, 502, "its operator must set it"),
        ({"status": 500, "parts": ['{"error": {"message": "boom upstream-key"}}']}, 502, "boom ***"),
        ({"status": 307, "headers": {"Location": "http://127.0.0.1:1/"}}, 502, "status 307"),
        ({"headers": {"Content-Type": "text/html"}, "parts": ["<p>Hello</p>"]}, 502, "failed"),
        ({"parts": ['data: {"choices": [}\n\n']}, 502, "not valid JSON"),
        ({"parts": ["[]"]}, 502, "failed"),
        ({"parts": []}, 502, "failed"),
        ({"parts": ["data: {}"], "then": "break"}, 502, "failed"),
    ],
)
def test_faults_become_errors(upstream, guarded, stream, script, status, words):
    upstream.put("fault", **script)
    answer = guarded.ask(model="fault", stream=stream)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert words in error["message"]
    assert set(error) == {"message", "type", "param", "code"}
    assert "upstream-key" not in answer.text
    if status == 400:
        assert (error["type"], error["code"]) == ("t", "c")


def test_a_busy_upstream_says_when_to_come_back(upstream, guarded):
    upstream.put("busy", status=429, headers={"Retry-After": "7"}, parts=['{"error": {"message": "slow down"}}'])
    answer = guarded.ask(model="busy")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")


def test_an_upstream_that_hangs_is_given_up(upstream):
    upstream.put("hang", parts=["x"], pause=5)
    backend = before_upstream(upstream.url, seconds=0.5)
    with serve_chat(Protector(WordGuard()), backend, request_timeout=0.5) as live:
        begun = time.monotonic()
        assert live.ask(model="hang").status_code == 504
        assert live.ask(model="hang", stream=True).status_code == 504
        assert time.monotonic() - begun < 4


def test_a_killed_upstream_and_its_return(tmp_path):
    own = UpstreamProcess(tmp_path)
    with serve_chat(Protector(WordGuard()), before_upstream(own.url)) as live:
        assert live.ask("One.").status_code == 200
        own.kill()
        for stream in (False, True):
            answer = live.ask("Two.", stream=stream)
            assert answer.status_code == 502
            assert answer.json()["error"]["code"] == "upstream_error"
        own.start()
        assert live.ask("Three.").json()["choices"][0]["message"]["content"] == "Three."
        own.put("dies", parts=["data: {}\n\n"], then="die")
        assert live.ask(model="dies").status_code == 502
        own.process.wait()
        own.start()
        chunks = render_chunks({"content": "One "}, {"content": "two "})
        own.put("dies", parts=chunks[:2], pause=0.1, then="die")
        streamed = live.stream(model="dies")
        assert streamed.done
        assert [error["code"] for error in streamed.errors] == ["upstream_error"]
        own.process.wait()
        own.start()
        assert live.stream("Four.").text() == "Four."
    own.kill()


@pytest.mark.parametrize("script", ["data: nonsense\n\n", 'data: {"error": {"message": "out of memory"}}\n\n', ""])
def test_a_stream_that_breaks_off_ends_clean(upstream, guarded, script):
    chunks = render_chunks({"content": "One "}, {"content": "two."})
    upstream.put("breaks", parts=[*chunks[:2], script], pause=0.05)
    streamed = guarded.stream(model="breaks")
    assert streamed.done
    assert len(streamed.errors) == 1
    assert "One two.".startswith(streamed.text())


def test_what_breaks_behind_the_end_mark_breaks_nothing(upstream, guarded):
    upstream.put("after", parts=[*render_chunks({"content": "Whole."}), "data: nonsense\n\n"], then="break")
    for usage in (False, True):
        streamed = guarded.stream(model="after", stream_options={"include_usage": usage})
        assert (streamed.text(), streamed.reason(), streamed.errors, streamed.done) == ("Whole.", "stop", [], True)


def test_odd_chunks_are_passed_over(upstream, guarded):
    odd = [
        ": comment\n\n",
        render_chunk({"index": 7, "delta": {"content": "poison"}}),
        render_chunk({"index": "0", "delta": {"content": "poison"}}),
        render_chunk({"index": 0, "delta": "poison"}),
        render_chunk({"index": 0}),
        render_chunk(*[], choices=None),
        render_chunk(*["poison"]),
    ]
    chunks = render_chunks({"content": "Bread"}, {"content": {"a": "poison"}}, {"content": None})
    upstream.put("odd-chunks", parts=[*odd, *chunks])
    streamed = guarded.stream(model="odd-chunks")
    assert (streamed.text(), streamed.reason(), streamed.done) == ("Bread", "stop", True)
    assert "poison" not in json.dumps(streamed.events)


def test_addresses(monkeypatch):
    monkeypatch.delenv("HTTP_PROXY", raising=False)
    assert Upstream("http://127.0.0.1:8000").name == "http://127.0.0.1:8000/v1"
    assert Upstream("http://me:secret@127.0.0.1:8000/api/").name == "http://127.0.0.1:8000/api"
    with pytest.raises(InputError, match="is no address"):
        Upstream("127.0.0.1:8000")
