"""The demo's process as other programs see it: closed to them, and bounded."""

from __future__ import annotations

import json
import time

import httpx
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("web_demo")]


@pytest.fixture(scope="module")
def http(demo):
    with httpx.Client(base_url=demo.url, timeout=30, trust_env=False) as client:
        yield client


def find_ask(http: httpx.Client) -> int:
    """Return the number of the event that asks the model."""
    events = http.get("/config").json()["dependencies"]
    (number,) = [event["id"] for event in events if event["api_name"] == "ask"]
    return number


def join(http: httpx.Client, number: int, visitor: str, *data: object) -> httpx.Response:
    """Ask as the page's script does."""
    body = {"data": data, "fn_index": number, "session_hash": visitor}
    return http.post("/gradio_api/queue/join", json=body)


def listen(http: httpx.Client, visitor: str) -> list[dict]:
    """Return the events of a visitor's question, up to its end."""
    found = []
    with http.stream("GET", "/gradio_api/queue/data", params={"session_hash": visitor}) as answer:
        for line in answer.iter_lines():
            if line.startswith("data:"):
                found.append(json.loads(line.removeprefix("data:")))
                if found[-1]["msg"] in ("process_completed", "close_stream"):
                    break
    return found


def test_a_browser_is_told_to_load_nothing_from_elsewhere(http):
    answer = http.get("/")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self' data: blob:" in policy
    assert "http" not in policy
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert "fonts.googleapis" not in answer.text


def test_no_statistics_and_no_interface_for_programs(http):
    config = http.get("/config").json()
    assert config["analytics_enabled"] is False
    assert http.get("/gradio_api/info").json()["named_endpoints"] == {}


def test_an_image_by_address_is_refused(http, upstream):
    asked = len(upstream.log())
    image = {"path": "https://example.org/a.png", "meta": {"_type": "gradio.FileData"}}
    assert join(http, find_ask(http), "address", "What is this?", image, 0.5).status_code == 200
    assert listen(http, "address")[-1]["success"] is False
    assert len(upstream.log()) == asked


def test_files_of_this_machine_are_not_read(http, upstream):
    asked = len(upstream.log())
    image = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}
    join(http, find_ask(http), "file", "What is this?", image, 0.5)
    assert listen(http, "file")[-1]["success"] is False
    assert len(upstream.log()) == asked
    assert http.get("/gradio_api/file=/etc/passwd").status_code in (403, 404)


def test_the_queue_has_an_end(http):
    number = find_ask(http)
    answers = []
    for visitor in range(6):
        answers.append(join(http, number, f"visitor{visitor}", f"word{visitor} " * 30, None, 0.999))
        time.sleep(0.2)
    codes = [answer.status_code for answer in answers]
    assert codes[:2] == [200, 200]
    assert codes[-1] == 503
    for visitor in range(codes.count(200)):
        events = listen(http, f"visitor{visitor}")
        assert events[-1]["success"] is True
        said = json.dumps(events)
        assert f"word{visitor}" in said
        assert not [other for other in range(6) if other != visitor and f"word{other}" in said]
