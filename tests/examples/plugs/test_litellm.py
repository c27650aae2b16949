"""The real LiteLLM proxy with the example's config, between a scripted upstream and a real guard."""

from __future__ import annotations

import json
import secrets
import socket
import subprocess
from pathlib import Path

import httpx
import pytest
import yaml

from llava.constants import REFUSAL
from tests.examples.plugs.support import (
    HARMFUL,
    HARMFUL_PART,
    HARMLESS,
    QUESTION,
    build_environment,
    find_interpreter,
    script_message,
    wait_until_ready,
)
from tests.serve.chat.live import render_chunks
from tests.serve.conftest import ServerProcess

CONFIG = Path(__file__).resolve().parents[3] / "examples" / "plugs" / "litellm.yaml"


class Proxy:
    """A running proxy."""

    def __init__(self, python: str, folder: Path, upstream: str, guard: str):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        key = f"sk-{secrets.token_hex(32)}"
        environment = build_environment(
            GUARD_URL=guard,
            GUARD_KEY="guard-key",
            UPSTREAM_URL=f"{upstream}/v1",
            UPSTREAM_KEY="upstream-key",
            LITELLM_MASTER_KEY=key,
            # What comes along is used, and nothing fetched.
            LITELLM_LOCAL_MODEL_COST_MAP="True",
            LITELLM_MODE="DEV",
        )
        words = [str(Path(python).with_name("litellm")), "--config", CONFIG, "--host", "127.0.0.1", "--port", str(port)]
        with (folder / "litellm.log").open("w") as log:
            self.process = subprocess.Popen(words, env=environment, cwd=folder, stdout=log, stderr=log)
        url = f"http://127.0.0.1:{port}"
        wait_until_ready(self.process, f"{url}/health/liveliness")
        headers = {"Authorization": f"Bearer {key}"}
        self.http = httpx.Client(base_url=url, headers=headers, timeout=120, trust_env=False)

    def ask(self, model: str, text: str = QUESTION, **fields: object) -> httpx.Response:
        """Ask for a chat completion."""
        body = {"model": model, "messages": [{"role": "user", "content": text}], **fields}
        return self.http.post("/v1/chat/completions", json=body)

    def end(self) -> None:
        """Stop it."""
        self.process.terminate()
        self.process.wait(30)


@pytest.fixture(scope="module")
def proxy(upstream, guard, tmp_path_factory):
    python = find_interpreter("MLLM_PROTECTOR_LITELLM", "litellm")
    running = Proxy(python, tmp_path_factory.mktemp("litellm"), upstream.url, guard.url)
    yield running
    running.end()


def read_text(answer: httpx.Response) -> str:
    """Return what a stream says."""
    assert answer.status_code == 200, answer.text
    events = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: {")]
    choices = [choice for event in events for choice in json.loads(event).get("choices", [])]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def test_the_config_holds_what_keeps_a_stream_tight():
    (entry,) = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["guardrails"]
    wanted = {
        "guardrail": "generic_guardrail_api",
        "mode": ["pre_call", "post_call"],
        "default_on": True,
        "unreachable_fallback": "fail_closed",
        "fail_on_error": True,
        "streaming_sampling_rate": 1,
        "streaming_transform_mode": "incremental_diff",
        "streaming_end_of_stream_only": False,
    }
    assert entry["litellm_params"].items() >= wanted.items()


@pytest.mark.slow
def test_whole_answers(proxy):
    answer = proxy.ask("good").json()
    assert answer["choices"][0]["message"]["content"] == HARMLESS
    answer = proxy.ask("bad").json()
    assert answer["choices"][0]["message"]["content"]
    assert HARMFUL_PART not in json.dumps(answer)
    assert answer["usage"]["total_tokens"] == 29


@pytest.mark.slow
def test_streams(proxy):
    whole = proxy.ask("good-stream", stream=True)
    assert read_text(whole) == HARMLESS
    cut = proxy.ask("bad-stream", stream=True)
    text = read_text(cut)
    assert text.endswith(REFUSAL)
    assert HARMFUL.startswith(text.removesuffix(REFUSAL).strip())
    assert HARMFUL_PART not in cut.text
    assert "[DONE]" in cut.text


@pytest.mark.slow
def test_a_harmful_question_does_not_reach_the_model(proxy, upstream):
    before = len(upstream.log())
    answer = proxy.ask("good", HARMFUL)
    assert answer.status_code == 400
    assert "judged harmful" in answer.json()["error"]["message"]
    assert len(upstream.log()) == before


@pytest.mark.slow
def test_what_the_guard_is_not_shown_does_not_get_out(proxy, upstream):
    words = [f"{word} " for word in HARMFUL.split()]
    said = {"role": "assistant", "content": "Hello.", "reasoning_content": HARMFUL}
    script_message(upstream, "thinks", said, logprobs={"content": [{"token": HARMFUL, "logprob": -1.0, "bytes": None}]})
    thoughts = [{"reasoning_content": word} for word in words]
    upstream.put("thinks-stream", parts=render_chunks(*thoughts, {"content": "Hello."}))
    calls = [{"tool_calls": [{"index": 0, "function": {"arguments": word}}]} for word in words]
    named = {"tool_calls": [{"index": 0, "id": "t", "type": "function", "function": {"name": "say", "arguments": ""}}]}
    upstream.put("calls-stream", parts=render_chunks(named, *calls))
    for model in ("thinks", "thinks-stream", "calls-stream"):
        answer = proxy.ask(model, stream=model.endswith("stream"), logprobs=True)
        assert HARMFUL_PART not in answer.text
        assert "wires" not in answer.text
    tool = {"type": "function", "function": {"name": "say", "parameters": {"type": "object", "properties": {}}}}
    assert proxy.ask("calls-stream", stream=True, tools=[tool]).status_code == 400
    whole = {"id": "t", "type": "function", "function": {"name": "say", "arguments": json.dumps({"text": HARMFUL})}}
    script_message(upstream, "calls", {"role": "assistant", "content": None, "tool_calls": [whole]})
    answer = proxy.ask("calls", tools=[tool])
    assert answer.status_code == 400
    assert "wires" not in answer.text


@pytest.mark.slow
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/completions", {"prompt": QUESTION}),
        ("/v1/responses", {"input": QUESTION}),
        ("/v1/messages", {"max_tokens": 9, "messages": [{"role": "user", "content": QUESTION}]}),
        ("/v1beta/models/bad:generateContent", {"contents": [{"role": "user", "parts": [{"text": QUESTION}]}]}),
    ],
)
def test_other_routes_are_refused(proxy, upstream, path, fields, stream):
    before = len(upstream.log())
    answer = proxy.http.post(path, json={"model": "bad", "stream": stream, **fields})
    assert answer.status_code == 404
    assert "only /v1/chat/completions is guarded here" in answer.text
    assert len(upstream.log()) == before


@pytest.mark.slow
def test_a_guard_that_is_gone_or_goes_means_no_answer(upstream, tiny_detector, tmp_path):
    python = find_interpreter("MLLM_PROTECTOR_LITELLM", "litellm")
    options = ("--detector", tiny_detector, "--dtype", "float32", "--threshold", "1", "--action", "block")
    guard = ServerProcess(*options)
    running = Proxy(python, tmp_path, upstream.url, guard.url)
    try:
        assert running.ask("good").status_code == 200
        guard.process.kill()
        guard.process.wait()
        for model, stream in (("good", False), ("good-stream", True)):
            answer = running.ask(model, stream=stream)
            assert answer.status_code >= 400
            assert "Save a little" not in answer.text
    finally:
        running.end()
