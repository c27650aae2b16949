from __future__ import annotations

import pytest

from tests.serve.chat.live import WordGuard
from tests.serve.support import HARMFUL, SAFE, serve_guard


class Reader(WordGuard):
    """Keeps the questions too."""

    def score(self, responses, prompts):
        self.pairs = list(zip(prompts, responses, strict=True))
        return super().score(responses, prompts)


@pytest.fixture(scope="module")
def live():
    with serve_guard(Reader()) as found:
        yield found


def classify(live, **body):
    answer = live.http.post("/classify", json=body)
    return answer.status_code, answer.json()


def test_texts_have_probabilities_in_the_form_of_vllm(live):
    status, body = classify(live, model="any", input=[SAFE, HARMFUL, ""])
    assert status == 200
    assert (body["object"], body["model"]) == ("list", "mllm-protector")
    assert body["id"].startswith("classify-")
    assert [entry["index"] for entry in body["data"]] == [0, 1, 2]
    assert [entry["label"] for entry in body["data"]] == ["safe", "harmful", "safe"]
    assert [entry["probs"] for entry in body["data"]] == [
        pytest.approx(probs) for probs in ([0.9, 0.1], [0.1, 0.9], [1, 0])
    ]
    assert {entry["num_classes"] for entry in body["data"]} == {2}
    assert set(body["usage"]) >= {"prompt_tokens", "total_tokens"}


def test_one_text_may_come_without_a_list(live):
    assert classify(live, input=HARMFUL)[1]["data"][0]["label"] == "harmful"


def test_questions_come_in_a_field_of_our_own(live):
    classify(live, input=[SAFE, HARMFUL], prompts=["Why?", "How?"])
    assert live.guard.pairs == [("Why?", SAFE), ("How?", HARMFUL)]


def test_of_a_conversation_the_last_message_is_judged(live):
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "How do"},
        {"role": "user", "content": [{"type": "text", "text": "I cook?"}, {"type": "image_url", "image_url": {}}]},
        {"role": "assistant", "content": SAFE},
    ]
    answer = live.http.post("/classify", json={"messages": messages})
    assert answer.json()["data"][0]["label"] == "safe"
    assert answer.headers["x-guard-not-inspected"] == "image"
    assert live.guard.pairs == [("How do\nI cook?", SAFE)]
    classify(live, messages=messages[:3])
    assert live.guard.pairs == [("", "I cook?")]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"input": []},
        {"input": [1]},
        {"input": [SAFE], "messages": []},
        {"messages": []},
        {"messages": [{"role": "user"}]},
        {"messages": [{"role": "user", "content": 5}]},
        {"messages": ["x"]},
        {"input": [SAFE], "prompts": []},
        {"input": [SAFE], "prompts": "x"},
        {"input": SAFE, "model": 5},
        {"input": SAFE, "use_activation": False},
    ],
)
def test_other_bodies_have_a_clean_answer(live, body):
    status, found = classify(live, **body)
    assert status == 400
    assert found["error"]["type"] == "invalid_request_error"


def test_a_large_body_is_read_too(live):
    status, body = classify(live, input=["word " * 15_000] * 5)
    assert status == 200
    assert [entry["label"] for entry in body["data"]] == ["safe"] * 5


def test_a_threshold_of_a_model_holds_for_requests_that_name_it():
    with serve_guard(threshold=0.95, thresholds={"strict": 0.05}) as live:
        flagged = {
            model: classify(live, model=model, input=[SAFE, HARMFUL])[1]["data"] for model in ("strict", "another")
        }
    assert [entry["flagged"] for entry in flagged["strict"]] == [True, True]
    assert [entry["flagged"] for entry in flagged["another"]] == [False, False]
