"""What stands before every route: ids, keys, limits, and errors in one shape."""

from __future__ import annotations

import socket
import threading
import time

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llava.serve.limits import RateLimiter
from tests.serve.chat.live import WordGuard
from tests.serve.support import HARMFUL, SAFE, SECRET, list_decisions, read_logs, read_metric, serve_guard

ROUTES = ("/v1/moderations", "/classify", "/v1/guardrail/checks", "/beta/litellm_basic_guardrail_api")


@pytest.fixture(scope="module")
def live():
    with serve_guard(max_body_bytes=2000, body_timeout=0.5) as found:
        yield found


def read_error(answer: httpx.Response) -> dict:
    """Return an answer's error, whose shape is OpenAI's."""
    body = answer.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert answer.headers["x-request-id"]
    return body["error"]


def test_every_answer_has_the_id_of_its_request(live):
    for path in ("/health", "/nowhere"):
        assert live.http.get(path, headers={"X-Request-Id": "mine-7"}).headers["x-request-id"] == "mine-7"
        found = live.http.get(path, headers={"X-Request-Id": "no\tplain id"}).headers["x-request-id"]
        assert found.startswith("req-")


@pytest.mark.parametrize(
    "path", ["/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/chat/completions", "/", "/docs", "/classify/"]
)
def test_what_is_no_route_is_refused(live, path):
    for method in ("GET", "POST"):
        answer = live.http.request(method, path, json={"input": SAFE})
        assert answer.status_code == 404
        assert read_error(answer)["code"] == "unknown_route"


def test_another_method_is_refused(live):
    answer = live.http.get("/classify")
    assert answer.status_code == 405
    assert read_error(answer)["code"] == "method_not_allowed"


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"x-api-key": "a"}, {"Authorization": "a"}])
def test_without_a_key_nobody_comes_in(headers):
    with serve_guard(api_keys=("first-key", "second-key")) as live:
        for path in (*ROUTES, "/v1/models", "/metrics", "/nowhere"):
            answer = live.http.post(path, json={"input": SAFE}, headers=headers)
            assert answer.status_code == 401
            assert read_error(answer)["code"] == "invalid_api_key"
        assert live.http.get("/health").status_code == live.http.get("/ready").status_code == 200


def test_keys_come_in_two_headers_and_stay_out_of_logs():
    with read_logs() as logs, serve_guard(api_keys=("first-key", "second-key")) as live:
        for headers in ({"Authorization": "Bearer second-key"}, {"x-api-key": "first-key"}):
            assert live.http.post("/classify", json={"input": SAFE}, headers=headers).status_code == 200
    assert {line["client"] for line in list_decisions(logs)} == {"key-1", "key-2"}
    assert "first-key" not in str(logs)
    assert "second-key" not in str(logs)


def test_a_body_that_is_too_large_is_refused_before_it_is_read(live):
    for path in ROUTES:
        answer = live.http.post(path, json={"input": "x" * 3000})
        assert answer.status_code == 413
        assert read_error(answer)["code"] == "body_too_large"


def test_a_body_without_a_length_is_counted(live):
    def pieces():
        for _ in range(100):
            yield b" " * 100

    answer = live.http.post("/classify", content=pieces(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 413
    assert read_error(answer)["code"] == "body_too_large"


def test_a_body_that_does_not_come_is_not_waited_for(live):
    port = httpx.URL(live.url).port
    with socket.create_connection(("127.0.0.1", port)) as line:
        head = f"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {99}\r\n\r\n"
        line.sendall(head.encode() + b'{"inp')
        assert line.recv(100).startswith(b"HTTP/1.1 408")


def test_a_client_that_goes_away_with_half_a_body_is_no_failure(live):
    with read_logs() as logs:
        with socket.create_connection(("127.0.0.1", httpx.URL(live.url).port)) as line:
            head = b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n"
            line.sendall(head + b'{"inp')
            time.sleep(0.1)
        end = time.monotonic() + 10
        while not read_metric(live, "mllm_protector_requests_total", status="499") and time.monotonic() < end:
            time.sleep(0.02)
    assert 499 in [entry.get("status") for entry in logs]
    assert {entry["level"] for entry in logs} == {"info"}


def test_another_type_of_body_is_refused(live):
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        answer = live.http.post("/classify", content=b'{"input": "x"}', headers={"Content-Type": kind})
        assert answer.status_code == 415
        assert read_error(answer)["code"] == "not_json"


def test_a_client_that_asks_too_often_is_told_when_to_come_back():
    with serve_guard(rate_limit=2.0, api_keys=("a-key", "b-key")) as live:
        ask = lambda key: live.http.get("/v1/models", headers={"x-api-key": key})  # noqa: E731
        assert [ask("a-key").status_code for _ in range(3)] == [200, 200, 429]
        turned_away = ask("a-key")
        assert read_error(turned_away)["code"] == "rate_limit_exceeded"
        assert 1 <= int(turned_away.headers["retry-after"]) <= 30
        assert ask("b-key").status_code == 200


def test_a_bucket_fills_again_and_the_oldest_is_forgotten(monkeypatch):
    monkeypatch.setattr("llava.serve.limits.MOST_CLIENTS", 3)
    now = [0.0]
    limiter = RateLimiter(60, clock=lambda: now[0])
    for client in ("a", "b", "c", "d", "e"):
        limiter.take(client)
    assert list(limiter.buckets) == ["c", "d", "e"]
    for _ in range(59):
        limiter.take("e")
    with pytest.raises(Exception, match="come back in 1 s"):
        limiter.take("e")
    now[0] = 1.0
    limiter.take("e")


values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=True) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
NAMES = """input messages model texts input_type structured_messages tool_calls images prompts guardrails
litellm_call_id additional_provider_specific_params role content type text"""
names = st.sampled_from(NAMES.split())


@settings(max_examples=60)
@given(path=st.sampled_from(ROUTES), body=st.dictionaries(names, values | st.just("response") | st.just(["x"])))
def test_any_body_has_a_clean_answer(live, path, body):
    answer = live.http.post(path, json=body) if "\\ud" not in ascii(body) else live.http.get("/health")
    assert answer.status_code in (200, 400, 403, 413)
    if answer.status_code != 200:
        read_error(answer)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"input": NaN}', b"[" * 1500, b'{"input": ' + b"9" * 1500 + b"}", b"1"],
)
def test_what_is_no_json_object_has_a_clean_answer(live, content):
    for path in ROUTES:
        answer = live.http.post(path, content=content, headers={"Content-Type": "application/json"})
        assert answer.status_code == 400
        assert read_error(answer)["type"] == "invalid_request_error"


def test_half_a_surrogate_pair_is_a_text_like_any_other(live):
    content = b'{"input": "\\ud800 poison", "model": "\\udfff"}'
    answer = live.http.post("/classify", content=content, headers={"Content-Type": "application/json"})
    assert answer.json()["data"][0]["label"] == "harmful"


def test_a_threshold_in_a_header_needs_leave(live):
    headers = {"X-Guard-Threshold": "0.95"}
    for path in ROUTES[:2]:
        answer = live.http.post(path, json={"input": HARMFUL}, headers=headers)
        assert answer.status_code == 403
        assert read_error(answer)["code"] == "threshold_not_allowed"
    with read_logs() as logs, serve_guard(allow_header_threshold=True) as lax:
        found = lax.http.post("/v1/moderations", json={"input": HARMFUL}, headers=headers).json()
        assert found["results"][0]["flagged"] is False
        for wrong in ("0", "nan", "high", "2"):
            answer = lax.http.post("/classify", json={"input": SAFE}, headers={"X-Guard-Threshold": wrong})
            assert answer.status_code == 400
    assert list_decisions(logs)[0]["threshold"] == 0.95


def test_too_many_waiting_texts_are_turned_away():
    with serve_guard(WordGuard("timeout"), queue_limit=4, max_texts=4) as live:
        first = threading.Thread(target=live.http.post, args=("/classify",), kwargs={"json": {"input": ["fail"] * 3}})
        first.start()
        while not read_metric(live, "mllm_protector_pending_texts"):
            time.sleep(0.01)
        for path, body in (
            ("/classify", {"input": [SAFE, SAFE]}),
            ("/v1/moderations", {"input": [SAFE, SAFE]}),
            ("/beta/litellm_basic_guardrail_api", {"input_type": "response", "texts": [SAFE, SAFE]}),
            ("/v1/guardrail/checks", {"messages": [{"role": "user", "content": SAFE}] * 2}),
        ):
            answer = live.http.post(path, json=body)
            assert answer.status_code == 429
            assert read_error(answer)["code"] == "overloaded"
            assert int(answer.headers["retry-after"]) >= 1
        assert live.http.post("/classify", json={"input": [SAFE] * 5}).status_code == 413
        first.join()
        assert live.http.post("/classify", json={"input": SAFE}).status_code == 200


def test_logs_hold_no_text(live):
    said = f"{SECRET} {HARMFUL}"
    with read_logs() as logs:
        live.http.post("/v1/moderations", json={"input": said, "model": said})
        live.http.post("/classify", json={"input": [said], "prompts": [said]})
        live.http.post("/classify", json={"input": {"a": said}})
        live.http.get(f"/{SECRET}?q={SECRET}")
        time.sleep(0.1)
    assert SECRET not in str(logs)
    decisions = list_decisions(logs)
    assert [line["action"] for line in decisions] == ["refused", "refused"]
    for line in decisions:
        assert line["request_id"].startswith("req-")
        assert (line["score"], line["threshold"], line["failure"]) == (0.9, 0.5, None)
    assert decisions[0]["model"] == "other"
    assert (decisions[0]["inspected"], decisions[1]["inspected"]) == (["response"], ["response", "prompt"])
