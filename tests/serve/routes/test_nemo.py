from __future__ import annotations

import pytest

from tests.serve.support import HARMFUL, SAFE, list_decisions, read_logs, serve_guard

ROUTE = "/v1/guardrail/checks"
INPUT, OUTPUT = "mllm-protector input", "mllm-protector output"


def say(*turns: tuple[str, object]) -> dict:
    messages = [{"role": role, "content": text} for role, text in turns]
    return {"model": "any", "messages": messages, "guardrails": {"config_id": "any"}}


@pytest.fixture(scope="module")
def live():
    with serve_guard() as found:
        yield found


def test_harmless_turns_succeed(live):
    body = live.http.post(ROUTE, json=say(("user", "How?"), ("assistant", SAFE))).json()
    assert body["status"] == "success"
    assert body["rails_status"] == {INPUT: {"status": "success"}, OUTPUT: {"status": "success"}}


@pytest.mark.parametrize("place", range(6))
def test_every_turn_is_checked(live, place):
    roles = ["system", "user", "user", "assistant", "tool", "assistant"]
    turns = [(role, HARMFUL if i == place else f"{SAFE} {i}") for i, role in enumerate(roles)]
    body = live.http.post(ROUTE, json=say(*turns)).json()
    assert body["status"] == "blocked"
    rail = OUTPUT if roles[place] == "assistant" else INPUT
    assert [name for name, found in body["rails_status"].items() if found["status"] == "blocked"] == [rail]
    assert [turn["flagged"] for turn in body["guardrails_data"]["turns"]] == [i == place for i in range(6)]


def test_calls_of_tools_and_thoughts_are_texts(live):
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": f'{{"a": "{HARMFUL}"}}'}}
    for message in (
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "assistant", "content": SAFE, "reasoning_content": HARMFUL},
        {"role": "assistant", "content": None, "function_call": call["function"]},
    ):
        assert live.http.post(ROUTE, json={"messages": [message]}).json()["status"] == "blocked"


def test_images_are_said_not_to_be_inspected(live):
    parts = [{"type": "text", "text": SAFE}, {"type": "image_url", "image_url": {"url": "data:,"}}]
    answer = live.http.post(ROUTE, json=say(("user", parts)))
    assert answer.headers["x-guard-not-inspected"] == "image"
    assert answer.json()["guardrails_data"]["not_inspected"] == ["image"]


def test_prompts_may_be_left_out_and_that_is_said():
    with read_logs() as logs, serve_guard(check_prompts=False) as live:
        answer = live.http.post(ROUTE, json=say(("user", HARMFUL), ("assistant", SAFE)))
        assert answer.json()["status"] == "success"
        assert answer.json()["rails_status"] == {OUTPUT: {"status": "success"}}
        assert answer.headers["x-guard-not-inspected"] == "prompt"
        assert live.http.post(ROUTE, json=say(("user", SAFE), ("assistant", HARMFUL))).json()["status"] == "blocked"
    assert all(line["not_inspected"] == ["prompt"] for line in list_decisions(logs))
