"""The programs that people use: the official Python client and curl, before tiny real models and an upstream."""

from __future__ import annotations

import json
import subprocess

import openai
import pytest

from llava import Detoxifier, HarmDetector, Protector, load_mllm
from llava.constants import REFUSAL
from llava.serve.chat.in_process import InProcessModel
from tests.serve.chat.live import WordGuard, before_upstream, serve_chat
from tests.serve.chat.test_images import data_uri
from tests.serve.chat.test_streaming import LATE, wait_for

HELLO = [{"role": "user", "content": "Hello there."}]
HARM = [{"role": "user", "content": LATE}]


@pytest.fixture(scope="module")
def client(guarded):
    return openai.OpenAI(base_url=f"{guarded.url}/v1", api_key="client-key", max_retries=0)


@pytest.fixture(scope="module")
def tiny(tiny_llava, tiny_detector, tiny_detoxifier):
    """A tiny model behind a tiny detector and detoxifier, all real; every score is on one side of the threshold."""
    detector = HarmDetector.from_pretrained(tiny_detector, dtype="float32")
    writer = Detoxifier.from_pretrained(tiny_detoxifier, dtype="float32")
    backend = InProcessModel(load_mllm(tiny_llava, dtype="float32"), "tiny", max_new_tokens=24)
    with serve_chat(Protector(detector, writer), backend, allow_header_threshold=True) as live:
        yield live


def test_an_answer(client):
    answer = client.chat.completions.create(model="echo", messages=HELLO, n=2)
    assert [choice.message.content for choice in answer.choices] == ["Hello there."] * 2
    assert answer.usage.total_tokens == 6
    assert answer.choices[0].mllm_protector["action"] == "passed"
    answer = client.chat.completions.create(model="echo", messages=HARM)
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == (REFUSAL, "content_filter")
    assert answer.usage.completion_tokens == len(LATE.split())


def test_a_stream(client):
    options = {"model": "echo", "stream": True, "stream_options": {"include_usage": True}}
    chunks = list(client.chat.completions.create(messages=HELLO, **options))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "Hello there."
    assert chunks[-1].usage.completion_tokens == 2
    chunks = list(client.chat.completions.create(messages=HARM, **options))
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text.endswith(REFUSAL)
    assert "poison" not in text
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "content_filter"
    assert chunks[-1].usage.completion_tokens == len(LATE.split())


def test_errors(client, upstream):
    with pytest.raises(openai.BadRequestError, match="'n'"):
        client.chat.completions.create(model="echo", messages=HELLO, n=0)
    upstream.put("broken", parts=["data: {}\n\n", "nonsense"], then="break")
    with pytest.raises(openai.InternalServerError, match="upstream failed"):
        client.chat.completions.create(model="broken", messages=HELLO)
    with pytest.raises(openai.APIError, match="upstream failed"):
        list(client.chat.completions.create(model="broken", messages=HELLO, stream=True))
    upstream.put("missing", status=404, parts=['{"error": {"message": "no model", "code": "model_not_found"}}'])
    with pytest.raises(openai.NotFoundError, match="no model"):
        client.chat.completions.create(model="missing", messages=HELLO)
    with pytest.raises(openai.NotFoundError, match="no such route"):
        client.completions.create(model="echo", prompt="Hello")


def test_an_image(client):
    image = {"type": "image_url", "image_url": {"url": data_uri(), "detail": "low"}}
    messages = [{"role": "user", "content": [image, {"type": "text", "text": "See this."}]}]
    answer = client.chat.completions.create(model="echo", messages=messages)
    assert answer.choices[0].message.content == "See this."
    assert answer.choices[0].mllm_protector["not_inspected"] == ["image"]


def run_curl(url, body, *options):
    command = ["curl", "-sS", "-N", *options, f"{url}/v1/chat/completions", "-d", json.dumps(body)]
    done = subprocess.run(
        [*command, "-H", "Content-Type: application/json"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_curl(guarded):
    body = {"model": "echo", "messages": HELLO}
    assert json.loads(run_curl(guarded.url, body))["choices"][0]["message"]["content"] == "Hello there."
    lines = run_curl(guarded.url, {**body, "stream": True}).split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    assert run_curl(guarded.url, {"messages": 1}, "-o", "/dev/null", "-w", "%{http_code}") == "400"


def test_tiny_models_stream_what_they_say_at_once(tiny):
    """Sampled by a seed, an answer in pieces is the answer as a whole, and so is what the guard made of it."""
    for seed in range(4):
        for threshold in ("1e-9", "1.0"):
            tiny.http.headers["X-Guard-Threshold"] = threshold
            fields = {"model": "tiny", "seed": seed, "stop": ["zz"], "n": 2}
            whole = tiny.ask("What is in the image?", **fields).json()
            streamed = tiny.stream("What is in the image?", stream_options={"include_usage": True}, **fields)
            for choice in whole["choices"]:
                index = choice["index"]
                verdict = streamed.verdict(index)
                assert streamed.reason(index) == choice["finish_reason"]
                assert verdict["action"] == choice["mllm_protector"]["action"]
                if verdict["action"] == "passed":
                    assert streamed.text(index) == choice["message"]["content"]
                    assert verdict["harm_score"] == pytest.approx(choice["mllm_protector"]["harm_score"], abs=1e-4)
            assert streamed.usage == whole["usage"]
            assert {choice["finish_reason"] for choice in whole["choices"]} <= {"stop", "length", "content_filter"}


def test_a_tiny_model_is_stopped_with_its_answer(tiny):
    tiny.http.headers["X-Guard-Threshold"] = "1e-9"
    fields = {"model": "tiny", "seed": 3, "max_tokens": 700, "stream_options": {"include_usage": True}}
    streamed = tiny.stream("What is in the image?", n=2, **fields)
    assert [streamed.reason(index) for index in range(2)] == ["content_filter"] * 2
    # Both choices were begun, and neither was written to its end.
    assert 2 < streamed.usage["completion_tokens"] < 1400
    assert streamed.verdict()["action"] in ("refused", "rewritten")
    wait_for(lambda: tiny.backend.under_way == 0)


def test_a_guard_before_a_guard(tiny):
    """The server itself is an upstream like any other; what it says beside an answer is no text of the model."""
    tiny.http.headers["X-Guard-Threshold"] = "1.0"
    whole = tiny.ask(model="tiny", seed=1).json()["choices"][0]["message"]
    with serve_chat(Protector(WordGuard()), before_upstream(tiny.url)) as outer:
        names = [entry["id"] for entry in outer.http.get("/v1/models").json()["data"]]
        assert names[:2] == ["tiny", "mllm-protector"]
        (choice,) = outer.ask(model="tiny", seed=1).json()["choices"]
        inner = tiny.service.protector.threshold
        if choice["finish_reason"] != "content_filter":
            assert choice["message"] == whole
        assert (choice["mllm_protector"]["threshold"], inner) == (0.5, inner)
        assert outer.stream(model="tiny", seed=1).done
        assert outer.ask(model="other").status_code == 404
