"""Whole answers through the guard, before an upstream in a process of its own."""

from __future__ import annotations

import json

import pytest

from llava import Protector
from llava.constants import REFUSAL, WITHHELD
from tests.protector.repair.words import WordDetector
from tests.serve.chat.live import HARM_SCORE, WordGuard, before_upstream, serve_chat


def put_message(upstream, name, message, **choice):
    """Let the upstream answer with a message."""
    entry = {"index": 0, "message": message, "finish_reason": "stop", **choice}
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    body = {"id": "c1", "object": "chat.completion", "created": 1, "model": name, "choices": [entry], "usage": usage}
    upstream.put(name, headers={"Content-Type": "application/json"}, parts=[json.dumps(body)])


def call(arguments, name="look_up", **fields):
    return {"id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}, **fields}


TOOLS = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}]


def test_a_harmless_answer_passes_as_it_is(guarded):
    text = "  Two blanks, a line break\nand an ä.\n"
    body = guarded.ask(text).json()
    (choice,) = body["choices"]
    assert choice["message"] == {"role": "assistant", "content": text}
    assert choice["finish_reason"] == "stop"
    assert choice["mllm_protector"] == {
        "action": "passed",
        "harm_score": 0.1,
        "threshold": 0.5,
        "inspected": ["content", "prompt"],
        "not_inspected": [],
    }
    assert body["usage"]["total_tokens"] == 2 * len(text.split())
    assert (body["id"], body["object"], body["model"]) == ("c1", "chat.completion", "echo")


def test_a_harmful_answer_is_replaced(guarded):
    body = guarded.ask("Take the poison.").json()
    (choice,) = body["choices"]
    assert choice["message"] == {"role": "assistant", "content": REFUSAL}
    assert choice["finish_reason"] == "content_filter"
    assert choice["mllm_protector"]["action"] == "refused"
    assert choice["mllm_protector"]["harm_score"] == HARM_SCORE
    assert body["usage"]["completion_tokens"] == 3


def test_a_harmful_sentence_is_cut_out(upstream):
    text = "Boil the water and salt it well. Then stir the poison in. Serve it warm with butter on top."
    with serve_chat(Protector(WordDetector()), before_upstream(upstream.url)) as live:
        answer = live.ask(text)
        (choice,) = answer.json()["choices"]
        assert choice["message"]["content"] == text.replace("Then stir the poison in. ", "")
        assert choice["finish_reason"] == "content_filter"
        assert choice["mllm_protector"]["action"] == "trimmed"
        assert "poison" not in answer.text
        streamed = live.stream(text)
        assert (streamed.reason(), streamed.verdict()["action"]) == ("content_filter", "refused")


def test_every_choice_is_guarded(upstream, guarded):
    entries = [
        {"index": index, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        for index, text in enumerate(["Bread.", "Poison.", "Water."])
    ]
    upstream.put("three", parts=[json.dumps({"choices": entries})])
    choices = guarded.ask(model="three", n=3).json()["choices"]
    assert [c["message"]["content"] for c in choices] == ["Bread.", REFUSAL, "Water."]
    assert [c["finish_reason"] for c in choices] == ["stop", "content_filter", "stop"]


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning", "refusal"])
def test_texts_beside_the_answer_are_checked(upstream, guarded, field):
    put_message(upstream, "beside", {"role": "assistant", "content": "No.", field: "With poison one could."})
    (choice,) = guarded.ask(model="beside").json()["choices"]
    assert choice["message"] == {"role": "assistant", "content": "No."}
    assert choice["finish_reason"] == "content_filter"
    assert choice["mllm_protector"]["harm_score"] == HARM_SCORE
    put_message(upstream, "beside", {"role": "assistant", "content": "No.", field: "With bread one could."})
    (choice,) = guarded.ask(model="beside").json()["choices"]
    assert choice["message"] == {"role": "assistant", "content": "No.", field: "With bread one could."}
    assert choice["mllm_protector"]["inspected"] == ["content", field, "prompt"]


def test_a_flagged_answer_takes_everything_beside_it_along(upstream, guarded):
    message = {"role": "assistant", "content": "Poison.", "reasoning": "Hm.", "tool_calls": [call('{"q": "x"}')]}
    put_message(upstream, "along", message, logprobs={"content": [{"token": "Poison"}]})
    (choice,) = guarded.ask(model="along", tools=TOOLS).json()["choices"]
    assert choice["message"] == {"role": "assistant", "content": REFUSAL}
    assert choice["logprobs"] is None


@pytest.mark.parametrize(
    "arguments",
    ['{"q": "poison"}', '{"q": "\\u0070oison"}', '{"poison": 1}', '{"q": [{"r": "the Poison"}]}', "not JSON: poison"],
)
def test_harmful_arguments_take_their_call_out(upstream, guarded, arguments):
    calls = [call('{"q": "bread"}'), call(arguments, id="call_2")]
    put_message(upstream, "calls", {"role": "assistant", "content": None, "tool_calls": calls})
    (choice,) = guarded.ask(model="calls", tools=TOOLS).json()["choices"]
    assert choice["message"]["tool_calls"] == calls[:1]
    assert choice["message"]["content"] is None
    assert choice["finish_reason"] == "content_filter"
    put_message(upstream, "calls", {"role": "assistant", "content": None, "tool_calls": calls[1:]})
    (choice,) = guarded.ask(model="calls", tools=TOOLS).json()["choices"]
    assert choice["message"] == {"role": "assistant", "content": REFUSAL}


def test_harmless_calls_pass(upstream, guarded):
    calls = [call('{"q": "bread"}'), call("{}"), call('{"days": 3}')]
    put_message(
        upstream, "fine", {"role": "assistant", "content": None, "tool_calls": calls}, finish_reason="tool_calls"
    )
    (choice,) = guarded.ask(model="fine", tools=TOOLS).json()["choices"]
    assert choice["message"] == {"role": "assistant", "content": None, "tool_calls": calls}
    assert choice["finish_reason"] == "tool_calls"
    assert choice["mllm_protector"]["inspected"] == ["tool_calls[0]", "tool_calls[2]", "prompt"]


def test_calls_say_nothing_that_is_not_read(upstream, guarded):
    odd = [call("{}", name="poison"), call("{}", id="the poison"), {"id": "c", "type": "function", "note": "poison"}]
    put_message(upstream, "odd", {"role": "assistant", "content": "Bread.", "tool_calls": odd})
    answer = guarded.ask(model="odd", tools=TOOLS)
    assert "poison" not in answer.text.lower()
    (kept,) = answer.json()["choices"][0]["message"]["tool_calls"]
    assert kept["function"] == {"name": "look_up", "arguments": "{}"}
    put_message(upstream, "old", {"role": "assistant", "function_call": {"name": "f", "arguments": '{"a": "poison"}'}})
    assert "poison" not in guarded.ask(model="old").text


def test_what_nobody_can_check_is_taken_out_and_named(upstream, guarded):
    message = {
        "role": "poison",
        "content": [{"type": "text", "text": "Bread."}, {"type": "image_url", "image_url": {"url": "data:poison"}}],
        "audio": {"transcript": "poison"},
        "annotations": [],
    }
    put_message(upstream, "unread", message, finish_reason="the poison", stop_reason="poison")
    answer = guarded.ask(model="unread")
    assert "poison" not in answer.text
    (choice,) = answer.json()["choices"]
    assert choice["message"] == {"role": "assistant", "content": "Bread."}
    assert choice["mllm_protector"]["removed"] == ["audio", "content parts"]


def test_an_empty_answer_says_nothing(upstream, guarded):
    put_message(upstream, "empty", {"role": "assistant", "content": ""})
    (choice,) = guarded.ask(model="empty").json()["choices"]
    assert choice["message"] == {"role": "assistant", "content": ""}
    assert choice["mllm_protector"]["action"] == "passed"
    assert choice["mllm_protector"]["harm_score"] is None
    assert choice["mllm_protector"]["inspected"] == []


@pytest.mark.parametrize("failure", ["exception", "nan", "timeout", "memory"])
def test_a_failing_detector_withholds(upstream, failure):
    protector = Protector(WordGuard(failure))
    with serve_chat(protector, before_upstream(upstream.url), guard_timeout=0.7, queue_limit=512) as live:
        answer = live.ask("It will fail now.")
        (choice,) = answer.json()["choices"]
        assert choice["message"] == {"role": "assistant", "content": WITHHELD}
        assert choice["finish_reason"] == "content_filter"
        assert choice["mllm_protector"]["action"] == "withheld"
        assert choice["mllm_protector"]["inspected"] == []
        assert choice["mllm_protector"]["not_inspected"] == ["content"]
        assert "secret" not in answer.text
        if failure != "timeout":
            assert live.ask("Fine.").json()["choices"][0]["message"]["content"] == "Fine."


def test_fail_open_passes_only_what_was_not_judged(upstream):
    with serve_chat(Protector(WordGuard("exception")), before_upstream(upstream.url), fail_open=True) as live:
        (choice,) = live.ask("It will fail now.").json()["choices"]
        assert choice["message"]["content"] == "It will fail now."
        assert choice["finish_reason"] == "stop"
        assert choice["mllm_protector"]["failed_open"] is True
        assert choice["mllm_protector"]["not_inspected"] == ["content"]
        assert live.ask("poison").json()["choices"][0]["message"]["content"] == REFUSAL


def test_the_operator_may_want_answers_cut_or_thresholds_set(upstream):
    settings = {"action": "block", "thresholds": {"echo": 0.05}, "allow_header_threshold": True}
    with serve_chat(Protector(WordGuard()), before_upstream(upstream.url), **settings) as live:
        (choice,) = live.ask("Bread.").json()["choices"]
        assert choice["message"]["content"] == ""
        assert choice["finish_reason"] == "content_filter"
        assert choice["mllm_protector"]["threshold"] == 0.05
        live.http.headers["X-Guard-Threshold"] = "0.95"
        assert live.ask("poison").json()["choices"][0]["message"]["content"] == "poison"
        live.http.headers["X-Guard-Threshold"] = "2"
        assert live.ask("poison").status_code == 400


def test_the_guard_reads_all_user_turns(upstream):
    class Reader(WordGuard):
        def score(self, responses, prompts):
            seen.extend(prompts)
            return super().score(responses, prompts)

    seen = []
    with serve_chat(Protector(Reader()), before_upstream(upstream.url)) as live:
        messages = [
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": "One."},
            {"role": "user", "content": [{"type": "text", "text": "Two."}, {"type": "text", "text": "Three."}]},
            {"role": "assistant", "content": "Four."},
            {"role": "user", "content": "Five."},
        ]
        live.http.post("/v1/chat/completions", json={"model": "echo", "messages": messages})
    assert seen == ["One.\n\nTwo.\nThree.\n\nFive."]
