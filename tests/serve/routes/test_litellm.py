from __future__ import annotations

import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llava.constants import REFUSAL
from llava.serve.routes.call_memory import Answer, CallMemory
from tests.serve.chat.live import WordGuard
from tests.serve.routes.test_classify import Reader
from tests.serve.support import HARMFUL, SAFE, Writer, serve_guard

ROUTE = "/beta/litellm_basic_guardrail_api"
REWRITE = "Please be kind."


@pytest.fixture(scope="module")
def live():
    with serve_guard(Reader(), Writer(REWRITE)) as found:
        yield found


def ask(live, *texts: str, call: str | None = None, **more: object) -> dict:
    body = {
        "input_type": "response",
        "texts": list(texts),
        "litellm_call_id": call,
        "structured_messages": None,
        **more,
    }
    answer = live.http.post(ROUTE, json={**body, "request_data": {}, "litellm_version": "1.0"})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_harmless_answer_is_left_alone(live):
    assert ask(live, SAFE) == {
        "action": "NONE",
        "blocked_reason": None,
        "texts": [SAFE],
        "images": [],
        "not_inspected": [],
    }


def test_a_harmful_answer_is_rewritten(live):
    found = ask(live, SAFE, HARMFUL)
    assert (found["action"], found["texts"]) == ("GUARDRAIL_INTERVENED", [SAFE, REWRITE])


def test_the_question_is_remembered_by_the_call(live):
    messages = [{"role": "user", "content": "How do I cook?"}]
    found = ask(live, "How do I cook?", call="c1", input_type="request", structured_messages=messages)
    assert found["action"] == "NONE"
    ask(live, SAFE, call="c1")
    assert live.guard.pairs == [("How do I cook?", SAFE)]
    ask(live, SAFE, call="c2")
    assert live.guard.pairs == [("", SAFE)]


def test_one_client_cannot_give_another_its_question():
    guard = Reader()
    with serve_guard(guard, api_keys=("a-key", "b-key")) as live:
        body = {"litellm_call_id": "c", "texts": ["How?"]}
        live.http.post(ROUTE, json={**body, "input_type": "request"}, headers={"x-api-key": "a-key"})
        live.http.post(ROUTE, json={**body, "input_type": "response"}, headers={"x-api-key": "b-key"})
        assert guard.pairs == [("", "How?")]


@pytest.mark.parametrize("place", range(3))
def test_every_turn_of_a_request_is_checked(live, place):
    roles = ["user", "assistant", "user"]
    messages = [{"role": role, "content": HARMFUL if i == place else SAFE} for i, role in enumerate(roles)]
    found = ask(live, "text", input_type="request", structured_messages=messages)
    assert (found["action"], found["texts"]) == ("BLOCKED", [])
    assert HARMFUL not in found["blocked_reason"]


def test_texts_beside_the_messages_are_checked_too(live):
    messages = [{"role": "user", "content": SAFE}]
    assert ask(live, SAFE, HARMFUL, input_type="request", structured_messages=messages)["action"] == "BLOCKED"


def test_prompts_may_be_left_out():
    with serve_guard(check_prompts=False) as live:
        found = ask(live, HARMFUL, input_type="request")
        assert (found["action"], found["not_inspected"]) == ("NONE", ["prompt"])


def test_images_and_tools_are_said_not_to_be_inspected(live):
    found = ask(live, SAFE, input_type="request", images=["data:image/png;base64,AA=="], tools=[{"type": "function"}])
    assert (found["action"], found["not_inspected"]) == ("NONE", ["image", "tool"])


def test_calls_of_tools_are_texts(live):
    call = {"index": 0, "function": {"name": "f", "arguments": HARMFUL}}
    assert ask(live, SAFE, tool_calls=[call])["action"] == "BLOCKED"
    assert ask(live, tool_calls=[{**call, "function": {"arguments": SAFE}}])["action"] == "NONE"


def test_a_flagged_answer_is_blocked_where_the_operator_says_so():
    with serve_guard(writer=Writer(), actions={ROUTE: "block"}) as live:
        found = ask(live, HARMFUL)
        assert (found["action"], found["texts"]) == ("BLOCKED", [])
        assert ask(live, SAFE)["action"] == "NONE"


def test_a_threshold_may_come_with_the_request():
    extra = {"additional_provider_specific_params": {"threshold": 0.95}}
    with serve_guard(allow_header_threshold=True) as lax:
        assert ask(lax, HARMFUL, **extra)["action"] == "NONE"
    with serve_guard() as strict:
        answer = strict.http.post(ROUTE, json={"input_type": "response", "texts": [HARMFUL], **extra})
        assert answer.status_code == 403


def test_a_growing_answer_ends_in_a_refusal_after_what_is_out(live):
    said = ["Boil", "Boil the water.", f"Boil the water. {HARMFUL}", f"Boil the water. {HARMFUL} And so on."]
    found = [ask(live, text, call="s1") for text in said]
    assert [one["texts"] for one in found[:2]] == [["Boil"], ["Boil the water."]]
    ended = f"Boil the water.\n\n{REFUSAL}"
    assert [one["texts"] for one in found[2:]] == [[ended], [ended]]
    assert found[3]["action"] == "GUARDRAIL_INTERVENED"


def test_a_text_that_does_not_go_on_is_blocked(live):
    ask(live, "Boil the water.", call="s2")
    found = ask(live, "Take some salt.", call="s2")
    assert found["action"] == "BLOCKED"
    assert ask(live, "Boil", call="s2")["texts"] == ["Boil the water."]


@settings(max_examples=20)
@given(
    words=st.lists(st.sampled_from(["salt ", "água\n", "🍚", " ", "poison ", "the "]), min_size=1, max_size=8),
    cuts=st.lists(st.integers(1, 12), min_size=1, max_size=12),
)
def test_every_returned_text_extends_the_one_before_and_is_harmless(live, words, cuts):
    number, text, place, shown = uuid.uuid4(), "".join(words), 0, ""
    ends = []
    while place < len(text):
        place += cuts[len(ends) % len(cuts)]
        ends.append(text[:place])
    for part in [*ends, text]:  # the last call comes twice
        (returned,) = ask(live, part, call=str(number))["texts"]
        assert returned.startswith(shown)
        assert "poison" not in returned
        shown = returned
    assert "poison" in text or shown == text


@pytest.mark.parametrize("failure", ["exception", "nan", "timeout", "memory"])
def test_a_growing_answer_that_cannot_be_judged_is_blocked(failure):
    with serve_guard(WordGuard(failure), guard_timeout=0.8) as live:
        assert ask(live, "All will", call="s")["texts"] == ["All will"]
        found = ask(live, "All will fail.", call="s")
        assert (found["action"], found["texts"]) == ("BLOCKED", [])
        assert "could not be checked" in found["blocked_reason"]


def test_calls_are_remembered_within_bounds():
    now = [0.0]
    memory = CallMemory(most_calls=3, most_characters=10, seconds=60, clock=lambda: now[0])
    for number in range(5):
        call = memory.find("a", str(number))
        call.prompt = "x"
        memory.keep(call)
    assert [number for _, number in memory.calls] == ["2", "3", "4"]
    call = memory.find("a", "3")
    call.answers[0] = Answer("y" * 9)
    memory.keep(call)
    assert [number for _, number in memory.calls] == ["3"]
    assert memory.characters == 10
    now[0] = 61.0
    assert memory.find("a", "3").prompt == ""
    assert memory.find("a", None) is not memory.find("a", None)
    assert memory.characters == 0


def test_what_is_not_remembered_takes_no_room():
    memory = CallMemory(most_calls=2, most_characters=100)
    nameless = memory.find("a", None)
    nameless.prompt = "x" * 1000
    memory.keep(nameless)
    assert memory.characters == 0
    slow = memory.find("a", "slow")
    for number in range(5):
        memory.find("a", str(number))  # not kept: their requests failed
    assert len(memory.calls) == 2
    slow.prompt = "x" * 50
    memory.keep(slow)
    assert memory.characters == 0


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"input_type": "both"},
        {"input_type": "response", "texts": "x"},
        {"input_type": "response", "texts": [1]},
        {"input_type": "request", "structured_messages": [{"content": "x"}]},
        {"input_type": "response", "litellm_call_id": 5},
        {"input_type": "response", "tool_calls": [{}]},
        {"input_type": "response", "additional_provider_specific_params": {"threshold": "x"}},
    ],
)
def test_other_bodies_have_a_clean_answer(live, body):
    answer = live.http.post(ROUTE, json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]
