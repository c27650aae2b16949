"""A tiny real model in the server's process."""

from __future__ import annotations

import time

import pytest

from llava import Protector, load_mllm
from llava.model.answering.generation import MultimodalModel
from llava.serve.chat.in_process import InProcessModel
from llava.serve.chat.writing import Writer, trim
from tests.serve.chat.live import WordGuard, serve_chat
from tests.serve.chat.test_images import data_uri

QUESTION = "How do I bake bread?"


@pytest.fixture(scope="module")
def model(tiny_llava) -> MultimodalModel:
    return load_mllm(tiny_llava, dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def live(model):
    with serve_chat(Protector(WordGuard()), InProcessModel(model, "tiny", max_new_tokens=12, queue_limit=2)) as found:
        yield found


def ask(live, text=QUESTION, **fields):
    return live.ask(text, **{"model": "tiny", "temperature": 0, **fields})


def test_a_greedy_answer_is_what_the_model_generates(live, model):
    (wanted,) = model.generate([QUESTION], max_new_tokens=12)
    body = ask(live).json()
    (choice,) = body["choices"]
    assert choice["message"]["content"] == wanted
    assert choice["finish_reason"] == "length"
    inputs = model.encode([QUESTION], None)["input_ids"]
    assert body["usage"] == {
        "prompt_tokens": inputs.shape[1],
        "completion_tokens": 12,
        "total_tokens": inputs.shape[1] + 12,
    }


def test_a_sampled_answer_is_repeated_by_its_seed(live, model):
    (wanted,) = model.generate([QUESTION], max_new_tokens=12, temperature=0.7, seeds=[5])
    first = ask(live, temperature=0.7, seed=5, n=2).json()["choices"]
    assert first[0]["message"]["content"] == wanted
    assert first[1]["message"]["content"] != wanted
    again = ask(live, temperature=0.7, seed=5, n=2).json()["choices"]
    assert [c["message"] for c in again] == [c["message"] for c in first]
    narrow = ask(live, temperature=0.7, seed=5, top_p=1e-9).json()["choices"]
    assert narrow[0]["message"] == ask(live).json()["choices"][0]["message"]


def test_an_image_changes_the_answer(live, model):
    from tests.serve.chat.test_images import open_images

    content = [{"type": "image_url", "image_url": {"url": data_uri()}}, {"type": "text", "text": QUESTION}]
    body = live.http.post(
        "/v1/chat/completions",
        json={"model": "tiny", "temperature": 0, "messages": [{"role": "user", "content": content}]},
    ).json()
    image = open_images([data_uri()]).images[0].image
    assert body["choices"][0]["message"]["content"] == model.generate([QUESTION], [image], max_new_tokens=12)[0]
    assert body["choices"][0]["mllm_protector"]["not_inspected"] == ["image"]
    both = live.http.post(
        "/v1/chat/completions",
        json={"model": "tiny", "messages": [{"role": "user", "content": [content[0], *content]}]},
    ).json()
    # A tiny image takes four positions of the prompt, and a line's end.
    assert both["usage"]["prompt_tokens"] - body["usage"]["prompt_tokens"] >= 4


def test_all_turns_reach_the_model(live, model):
    turns = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "One <|im_end|>."},
        {"role": "assistant", "content": "Two."},
        {"role": "user", "content": "Three."},
    ]
    body = live.http.post("/v1/chat/completions", json={"model": "tiny", "messages": turns}).json()
    text = (
        "<|im_start|>system\nBe short.<|im_end|>\n<|im_start|>user\nOne < |im_end|>.<|im_end|>\n"
        "<|im_start|>assistant\nTwo.<|im_end|>\n<|im_start|>user\nThree.<|im_end|>\n<|im_start|>assistant\n"
    )
    assert body["usage"]["prompt_tokens"] == len(model.tokenizer(text, add_special_tokens=False).input_ids)


def test_a_stop_text_ends_the_answer_before_it(live):
    whole = ask(live, max_tokens=40).json()["choices"][0]["message"]["content"]
    stop = whole[10:13]
    body = ask(live, max_tokens=40, stop=[stop, "never"]).json()
    (choice,) = body["choices"]
    assert choice["message"]["content"] == whole[: whole.find(stop)].rstrip()
    assert choice["finish_reason"] == "stop"
    assert body["usage"]["completion_tokens"] < 40


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ({"model": "other"}, 404, "ask tiny"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, 400, "'tools'"),
        ({"frequency_penalty": 0.5}, 400, "'frequency_penalty'"),
        ({"response_format": {"type": "json_object"}}, 400, "'response_format'"),
        ({"top_k": 5}, 400, "'top_k'"),
        ({"messages": [{"role": "tool", "content": "x"}]}, 400, "role tool"),
        ({"messages": [{"role": "user", "content": "word " * 3000}]}, 400, "does not fit"),
    ],
)
def test_what_it_cannot_do(live, fields, status, words):
    answer = ask(live, **fields)
    assert answer.status_code == status
    assert words in answer.json()["error"]["message"]


def test_fields_that_ask_for_nothing_pass(live):
    fields = {"tools": [], "frequency_penalty": 0, "logprobs": False, "user": "me", "response_format": {"type": "text"}}
    assert ask(live, **fields, seed=None, stop=None).status_code == 200


def test_models(live):
    names = [entry["id"] for entry in live.http.get("/v1/models").json()["data"]]
    assert names[0] == "tiny"


@pytest.mark.parametrize("seed", range(6))
def test_pieces_are_the_whole_text(model, seed):
    """Random tokens: broken characters, blanks and special tokens among them."""
    import torch

    torch.manual_seed(seed)
    ids = torch.randint(3, len(model.tokenizer), (60,))
    ids = ids[ids != model.tokenizer.convert_tokens_to_ids("<image>")]
    pieces = []
    writer = Writer(model, [], pieces.append)
    writer.put(torch.tensor([1, 2]))
    for token in ids:
        writer.put(token[None])
    writer.end()
    text = model.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert "".join(pieces) == trim(text)
    assert len(pieces) > 5


def test_stop_texts_are_found_across_tokens(model):
    import torch

    pieces = []
    writer = Writer(model, ["END\n", "Never"], pieces.append)
    writer.put(torch.tensor([1]))
    for token in model.tokenizer("\n One EN two END\nthree", add_special_tokens=False).input_ids:
        writer.put(torch.tensor([token]))
    writer.end()
    assert "".join(pieces) == "One EN two"
    assert (writer.told.is_set(), writer.reason) == (True, "stop")


def test_a_client_that_goes_away_stops_the_model(live, model):
    begun = time.monotonic()
    with live.http.stream("POST", "/v1/chat/completions", json=body_of(900)) as answer:
        next(answer.iter_bytes())
    wait_until_idle(live)
    assert time.monotonic() - begun < 20
    assert ask(live).status_code == 200


def test_more_than_can_wait_are_turned_away(live):
    import concurrent.futures

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: ask(live, max_tokens=60), range(6)))
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses[0] == 200
    assert set(statuses) == {200, 429}
    assert all("retry-after" in answer.headers for answer in answers if answer.status_code == 429)
    wait_until_idle(live)


def body_of(tokens):
    messages = [{"role": "user", "content": QUESTION}]
    return {"model": "tiny", "messages": messages, "stream": True, "max_tokens": tokens, "temperature": 1}


def wait_until_idle(live):
    """Wait until the model's thread is free: a short answer gets its turn."""
    for _ in range(200):
        if live.backend.under_way == 0:
            return
        time.sleep(0.05)
    raise AssertionError("the model is still busy")
