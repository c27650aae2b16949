"""A served model: the same answers as in this process, in order, with as many requests under way as allowed."""

from __future__ import annotations

import base64
import io
import threading
import time

import pytest
from PIL import Image

from llava.model.answering.client import EndpointError
from llava.model.answering.endpoint import EndpointModel
from tests.model.chat_server import ChatServer, connect, echo


def test_a_served_model_answers_as_it_does_in_this_process(tiny_llava):
    from llava.model.loading import load_mllm

    model = load_mllm(tiny_llava, device="cpu")
    lock = threading.Lock()

    def answer(request: dict) -> str:
        content = request["messages"][0]["content"]
        image = None
        if not isinstance(content, str):
            data = content[0]["image_url"]["url"].removeprefix("data:image/png;base64,")
            image = Image.open(io.BytesIO(base64.b64decode(data)))
            content = content[1]["text"]
        with lock:
            return model.generate([content], [image], max_new_tokens=request["max_tokens"])[0]

    prompts = ["How do I bake bread?", "What is on the picture?", "Name a river."]
    images = [None, Image.effect_noise((40, 30), 90).convert("RGB"), None]
    expected = [model.generate([p], [i], max_new_tokens=8)[0] for p, i in zip(prompts, images, strict=True)]
    with ChatServer(answer) as server:
        assert EndpointModel(connect(server)).generate(prompts, images, max_new_tokens=8) == expected


def test_answers_keep_their_order_and_requests_their_limit():
    def answer(request: dict) -> str:
        text = request["messages"][0]["content"]
        if text == "0":  # answered after another one, however slow the machine is
            deadline = time.monotonic() + 60
            while len(server.requests) < 3 and time.monotonic() < deadline:
                time.sleep(0.01)
        return text

    with ChatServer(answer) as server:
        model = EndpointModel(connect(server), concurrency=3)
        assert model.generate([str(i) for i in range(12)]) == [str(i) for i in range(12)]
        assert 2 <= server.most_running <= 3
        assert model.generate([]) == []


def test_the_request_says_what_was_asked():
    with ChatServer(echo) as server:
        EndpointModel(connect(server)).generate(["a"], max_new_tokens=7, temperature=0.5, seeds=[2**40])
        EndpointModel(connect(server)).generate(["b"])
    first, second = server.requests
    assert first["model"] == "tiny"
    assert (first["max_tokens"], first["temperature"]) == (7, 0.5)
    assert 0 <= first["seed"] < 2**31
    assert second["temperature"] == 0
    assert "seed" not in second


def test_a_dead_server_ends_the_work_with_a_line():
    with ChatServer(echo) as server:
        client = connect(server)
    with pytest.raises(EndpointError, match=r"gave no answer in .* tr.*refused"):
        EndpointModel(client).generate(["a", "b"])


def test_a_refused_question_has_an_empty_answer():
    def refuse(request: dict) -> int | None:
        return 400 if request["messages"][0]["content"] == "bad" else None

    with ChatServer(echo, refuse=refuse) as server:
        assert EndpointModel(connect(server)).generate(["good", "bad"]) == ["you said good", ""]
