from __future__ import annotations

import pytest

from tests.serve.support import HARMFUL, SAFE, read_metric, serve_guard


@pytest.fixture(scope="module")
def live():
    with serve_guard(model_name="org/our guard", threshold=0.25) as found:
        yield found


def test_the_guard_is_a_model_that_says_what_it_is(live):
    listed = live.http.get("/v1/models").json()
    assert listed["object"] == "list"
    (entry,) = listed["data"]
    assert (entry["id"], entry["object"], entry["owned_by"]) == ("org/our guard", "model", "mllm-protector")
    assert entry["guard"] == {"identity": "words@0.5", "threshold": 0.25}
    assert live.http.get("/v1/models/org/our guard").json() == entry
    missing = live.http.get("/v1/models/other")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")


def test_health_and_readiness(live):
    assert live.http.get("/health").json() == {"status": "ok"}
    assert live.http.get("/ready").json() == {"status": "ready"}


def test_counters_count_by_route_and_never_by_what_a_request_says(live):
    live.http.post("/classify", json={"input": [SAFE, HARMFUL], "model": "secret-model"})
    live.http.get("/secret-path")
    text = live.http.get("/metrics").text
    assert read_metric(live, "mllm_protector_decisions_total", route="/classify", action="passed") == 1
    assert read_metric(live, "mllm_protector_decisions_total", route="/classify", action="refused") == 1
    assert read_metric(live, "mllm_protector_requests_total", route="other", method="GET", status="404") == 1
    assert read_metric(live, "mllm_protector_harm_score_count") == 2
    assert "secret" not in text
