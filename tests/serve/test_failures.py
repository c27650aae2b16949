"""Whatever happens to the guard, no route lets a text pass that was not judged."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from tests.serve.chat.live import WordGuard
from tests.serve.support import (
    FAILING,
    HARMFUL,
    SAFE,
    SECRET,
    Writer,
    list_decisions,
    read_logs,
    read_metric,
    serve_guard,
)

FAILURES = {"exception": "RuntimeError", "nan": "NoScore", "timeout": "GuardTimeoutError", "memory": "OutOfMemoryError"}
"""How a guard fails → how the audit line names it."""
LITELLM, NEMO = "/beta/litellm_basic_guardrail_api", "/v1/guardrail/checks"


def ask(live, route: str, text: str, kind: str = "") -> tuple[bool, dict]:
    """Ask a route about a text; return whether it passed, and the answer."""
    bodies = {
        "/v1/moderations": {"input": text},
        "/classify": {"input": text},
        NEMO: {"messages": [{"role": kind or "assistant", "content": text}]},
        LITELLM: {"input_type": kind or "response", "texts": [text]},
    }
    answer = live.http.post(route, json=bodies[route])
    body = answer.json()
    if answer.status_code != 200:
        return False, body
    if route == "/v1/moderations":
        return not body["results"][0]["flagged"], body
    if route == "/classify":
        return body["data"][0]["label"] == "safe", body
    if route == NEMO:
        return body["status"] == "success", body
    return text in body["texts"], body


def wait_until_idle(live) -> None:
    """Wait until the guard has ended what came too late."""
    end = time.monotonic() + 30
    while live.service.detector.stuck_for() or live.service.detector.count_waiting():
        assert time.monotonic() < end
        time.sleep(0.01)


CASES = [("/v1/moderations", ""), ("/classify", ""), (NEMO, "assistant"), (NEMO, "user")]
CASES += [(LITELLM, "request"), (LITELLM, "response")]


@pytest.mark.parametrize("failure", FAILURES)
def test_no_route_passes_what_was_not_judged(failure):
    with read_logs() as logs, serve_guard(WordGuard(failure), Writer(), guard_timeout=0.8) as live:
        for route, kind in CASES:
            passed, body = ask(live, route, f"{FAILING} {SECRET}", kind)
            assert not passed, body
            assert SECRET not in str(body)
            wait_until_idle(live)
            assert ask(live, route, SAFE, kind)[0], "it recovers"
        for part in ("/v1/moderations", "/classify"):
            body = ask(live, part, FAILING)[1]
            scores = body["results"][0]["category_scores"] if "results" in body else {"p": body["data"][0]["probs"][1]}
            assert max(scores.values()) == 1.0
            wait_until_idle(live)
        assert read_metric(live, "mllm_protector_guard_failures_total", error=FAILURES[failure]) == len(CASES) + 2
        assert read_metric(live, "mllm_protector_failed_open_total") == 0
    held = [line for line in list_decisions(logs) if line["action"] == "withheld"]
    assert [line["failure"] for line in held] == [{"part": "detector", "error": FAILURES[failure]}] * (len(CASES) + 2)
    assert all(line["score"] is None and line["inspected"] == [] for line in held)
    assert SECRET not in str(logs)


@pytest.mark.parametrize("failure", FAILURES)
def test_fail_open_passes_is_counted_apart_and_never_for_harm(failure):
    settings = {"guard_timeout": 0.8, "fail_open": True}
    with read_logs() as logs, serve_guard(WordGuard(failure), **settings) as live:
        routes = [("/classify", ""), (LITELLM, "response"), ("/v1/moderations", ""), (NEMO, "assistant")]
        for route, kind in routes:
            assert ask(live, route, FAILING, kind)[0]
            wait_until_idle(live)
            assert not ask(live, route, HARMFUL, kind)[0]
        assert read_metric(live, "mllm_protector_failed_open_total", route="/classify") == 1
        assert read_metric(live, "mllm_protector_decisions_total", route="/classify", action="failed_open") == 1
        assert read_metric(live, "mllm_protector_decisions_total", route="/classify", action="passed") == 0
    opened = [line for line in list_decisions(logs) if line["failed_open"]]
    assert len(opened) == len(routes)
    assert {line["failure"]["error"] for line in opened} == {FAILURES[failure]}


def test_one_text_that_fails_does_not_take_the_others_along():
    with serve_guard(WordGuard("exception")) as live:
        found = live.http.post("/classify", json={"input": [SAFE, FAILING, HARMFUL]}).json()["data"]
    assert [entry["label"] for entry in found] == ["safe", "harmful", "harmful"]
    assert [entry.get("failure") for entry in found] == [None, {"part": "detector", "error": "RuntimeError"}, None]


@pytest.mark.parametrize("failure", [RuntimeError("no"), torch.OutOfMemoryError("no")])
@pytest.mark.parametrize("fail_open", [False, True])
def test_a_failing_detoxifier_means_the_refusal_even_with_fail_open(failure, fail_open):
    with read_logs() as logs, serve_guard(writer=Writer(failure=failure), fail_open=fail_open) as live:
        passed, body = ask(live, LITELLM, HARMFUL)
        assert not passed
        assert body["texts"][0].startswith("I'm sorry")
        assert read_metric(live, "mllm_protector_failed_open_total") == 0
    (line,) = list_decisions(logs)
    assert (line["action"], line["failure"]["part"]) == ("refused", "detoxifier")


def test_a_detoxifier_that_is_late_means_the_refusal_and_may_take_longer_than_the_detector():
    class LateWriter(Writer):
        def rewrite(self, *arguments, **options):
            time.sleep(1.5)
            return super().rewrite(*arguments, **options)

    with serve_guard(writer=LateWriter(), guard_timeout=1.0) as live:
        assert ask(live, LITELLM, HARMFUL)[1]["texts"] == ["Please be kind."]
    with read_logs() as logs, serve_guard(writer=LateWriter(), rewrite_timeout=0.3) as live:
        assert ask(live, LITELLM, HARMFUL)[1]["texts"][0].startswith("I'm sorry")
    assert list_decisions(logs)[0]["failure"] == {"part": "detoxifier", "error": "GuardTimeoutError"}


@pytest.mark.parametrize("rewrite", ["", "More poison.", FAILING, None, 5])
def test_a_rewrite_that_is_no_good_is_not_shown(rewrite):
    with serve_guard(WordGuard("exception"), Writer(rewrite)) as live:
        assert ask(live, LITELLM, HARMFUL)[1]["texts"][0].startswith("I'm sorry")


def test_overload_is_turned_away_or_with_fail_open_passed_and_counted():
    with serve_guard(WordGuard("timeout"), queue_limit=1, max_texts=1, fail_open=True) as live:
        first = threading.Thread(target=ask, args=(live, "/classify", FAILING))
        first.start()
        while not read_metric(live, "mllm_protector_pending_texts"):
            time.sleep(0.01)
        assert ask(live, "/classify", HARMFUL)[0]
        assert read_metric(live, "mllm_protector_guard_failures_total", error="OverloadedError") == 1
        assert read_metric(live, "mllm_protector_failed_open_total", route="/classify") == 1
        first.join()


@pytest.mark.parametrize("fail_open", [False, True])
def test_a_text_that_is_too_long_is_refused_whatever_is_set(fail_open):
    with serve_guard(fail_open=fail_open, max_text_chars=100) as live:
        for route, kind in CASES:
            passed, body = ask(live, route, "word " * 21, kind)
            assert not passed
            assert body["error"]["code"] == "text_too_long"
            assert ask(live, route, "word " * 19, kind)[0]


def test_a_guard_that_hangs_is_not_ready():
    with serve_guard(WordGuard("timeout"), guard_timeout=0.2) as live:
        assert live.http.get("/ready").status_code == 200
        assert not ask(live, "/classify", FAILING)[0]
        assert live.http.get("/ready").status_code == 503
        assert live.http.get("/health").status_code == 200
        wait_until_idle(live)
        assert live.http.get("/ready").status_code == 200


def test_after_the_end_nothing_passes():
    with serve_guard() as live:
        live.service.stop()
        for route, kind in CASES:
            assert not ask(live, route, SAFE, kind)[0]
        assert live.http.get("/ready").status_code == 503
