"""A guard on another machine: a second server of ours, and one that classifies as vLLM does."""

from __future__ import annotations

import contextlib
import json
import math
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from llava import Protector, build_guard
from llava.data.schema import Action
from llava.errors import InputError
from llava.protector.detector import HarmDetector
from llava.protector.guard import check_guard, identify_guard
from llava.protector.guards.base import Guard
from llava.protector.guards.export import export_detector
from llava.protector.guards.remote import RemoteGuardError, parse_remote
from tests.serve.chat.live import WordGuard
from tests.serve.support import FAILING, HARMFUL, SAFE, serve_guard
from tests.tiny_adapters import build_detector_adapter

ENTRY = {"index": 0, "label": "harmful", "probs": [0.25], "num_classes": 1}


class Classifier(ThreadingHTTPServer):
    """A server with the two doors of vLLM; `answer` takes a request's body and gives status and body."""

    def __init__(self, answer: Callable[[dict], tuple[int, object]], models: object = None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer = answer
        self.models = models or {"data": [{"id": "guard", "object": "model", "owned_by": "vllm", "root": "org/guard"}]}
        self.bodies: list[dict] = []
        self.keys: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Classifier

    def log_message(self, *arguments):
        pass

    def send(self, status: int, body: object) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self):
        self.send(200, self.server.models)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.bodies.append(body)
        self.server.keys.append(self.headers["Authorization"])
        with contextlib.suppress(OSError):
            self.send(*self.server.answer(body))


@contextlib.contextmanager
def classify(answer, models=None):
    server = Classifier(answer, models)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_second_server_of_ours_scores():
    with serve_guard(threshold=0.3, api_keys=("the-key",)) as live, pytest.MonkeyPatch.context() as patch:
        with pytest.raises(InputError, match="set MLLM_PROTECTOR_GUARD_KEY"):
            build_guard(live.url)
        patch.setenv("MLLM_PROTECTOR_GUARD_KEY", "the-key")
        guard = build_guard(live.url, batch_size=2)
        assert isinstance(guard, Guard)
        assert guard.score([SAFE, HARMFUL, SAFE], ["", "Why?", ""]) == pytest.approx([0.1, 0.9, 0.1])
        assert (guard.threshold, guard.identity) == (0.3, "words@0.3")
        assert identify_guard(live.url).key == "words"
        check_guard(live.url)
        strict = build_guard(f"any({live.url}/v1?threshold=0.05, {live.url})")
        assert Protector(strict).guard([""], [SAFE])[0].action is Action.REFUSED
        assert "the-key" not in repr(guard) + guard.name + guard.identity
        with pytest.raises(InputError, match="leave --detector-base out"):
            build_guard(live.url, base="x")


def test_what_the_other_guard_fails_at_is_withheld():
    with serve_guard(WordGuard("exception")) as live:
        protector = Protector(build_guard(live.url))
        actions = [result.action for result in protector.guard([""] * 3, [SAFE, FAILING, HARMFUL])]
    assert actions == [Action.PASSED, Action.WITHHELD, Action.REFUSED]
    with serve_guard(WordGuard("nan"), fail_open=True) as live:
        (result,) = Protector(build_guard(live.url)).guard([""], [FAILING])
    assert result.action is Action.WITHHELD  # whether it passes is for the server that shows it to say


def test_an_exported_detector_behind_classify_scores_as_it_does_here(tiny_lm, tmp_path):
    adapter = build_detector_adapter(tmp_path / "adapter", tiny_lm, pooling="last", temperature=1.5, max_length=512)
    address = export_detector(str(adapter), tmp_path / "export").partition("PORT")[2].rstrip("'")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "export", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "export")

    def answer(body):
        scores = [torch.sigmoid(model(**tokenizer(text, return_tensors="pt")).logits).item() for text in body["input"]]
        labels = model.config.id2label
        return 200, {
            "data": [
                {"index": i, "label": labels[0], "probs": [score], "num_classes": 1} for i, score in enumerate(scores)
            ]
        }

    responses, prompts = ["Boil the water.", "No.", "Say <|im_end|> {prompt}."], ["How?", "", "Why {response}?"]
    expected = HarmDetector.from_pretrained(adapter, dtype="float32")
    with classify(answer) as server:
        guard = build_guard(server.url + address)
        assert guard.score(responses, prompts) == pytest.approx(expected.score(responses, prompts), abs=1e-5)
        assert guard.threshold == expected.threshold
        assert len(guard.identity.partition("@")[0]) == 64


def test_a_long_response_is_scored_in_windows_and_the_worst_counts():
    def answer(body):
        scores = [0.9 if "poison" in text else 0.1 for text in body["input"]]
        return 200, {"data": [{**ENTRY, "index": i, "probs": [score]} for i, score in enumerate(scores)]}

    with classify(answer) as server:
        guard = build_guard(f"{server.url}?text_form=response", batch_size=2)
        assert guard.score(["x " * 4000 + "poison", "y", " "], ["", "", ""]) == pytest.approx(
            [0.9, 0.1, math.nan], nan_ok=True
        )
        assert all(len(text) <= 1500 for body in server.bodies for text in body["input"])
        assert {len(body["input"]) for body in server.bodies} == {2}
        assert {body["model"] for body in server.bodies} == {"guard"}


BROKEN = [
    (200, b"not json"),
    (200, {"data": []}),
    (200, {"data": [ENTRY, ENTRY]}),
    (200, {"data": [{**ENTRY, "index": 1}]}),
    (200, {"data": [{**ENTRY, "probs": [math.nan]}]}),
    (200, {"data": [{**ENTRY, "probs": [math.inf]}]}),
    (200, {"data": [{**ENTRY, "probs": [1.5]}]}),
    (200, {"data": [{**ENTRY, "probs": ["0.1"]}]}),
    (200, {"data": [{**ENTRY, "probs": []}]}),
    (200, {"data": [{**ENTRY, "probs": [0.1, 0.2, 0.7]}]}),
    (200, {"data": [{**ENTRY, "probs": [0.1, 0.1]}]}),
    (200, {"data": [{**ENTRY, "label": "LABEL_1", "probs": [0.1, 0.9]}]}),
    (200, {"data": [{**ENTRY, "label": "joy"}]}),
    (200, {"data": [{**ENTRY, "label": None}]}),
    (200, {"error": "x"}),
    (400, {"error": {"message": "too long"}}),
    (404, b""),
    (500, b""),
    (302, b""),
]


@pytest.mark.parametrize("answer", BROKEN)
def test_anything_but_finite_probabilities_is_an_error(answer):
    with classify(lambda body: answer) as server:
        guard = build_guard(server.url)
        with pytest.raises(RemoteGuardError):
            guard.score([SAFE], [""])
        (result,) = Protector(guard).guard([""], [SAFE])
        assert (result.action, result.failure.error) == (Action.WITHHELD, "RemoteGuardError")


@pytest.mark.parametrize(
    ("entry", "score"),
    [
        ({"label": "harmful", "probs": [0.25]}, 0.25),
        ({"label": "safe", "probs": [0.25]}, 0.75),
        ({"label": "LABEL_0", "probs": [0.25]}, 0.75),  # as released detectors have it
        ({"label": "unsafe", "probs": [0.25, 0.75]}, 0.75),
        ({"label": "not_toxic", "probs": [0.75, 0.25]}, 0.25),
    ],
)
def test_labels_say_what_a_probability_means(entry, score):
    with classify(lambda body: (200, {"data": [{**ENTRY, **entry}]})) as server:
        assert build_guard(server.url).score([SAFE], [""]) == [pytest.approx(score)]


def test_a_busy_server_is_asked_again_and_not_for_ever():
    answers = iter([(503, b""), (429, b""), (200, {"data": [ENTRY]}), *[(503, b"")] * 9])
    with classify(lambda body: next(answers)) as server:
        guard = build_guard(server.url)
        assert guard.score([SAFE], [""]) == [0.25]
        assert len(server.bodies) == 3
        with pytest.raises(RemoteGuardError, match="status 503"):
            guard.score([SAFE], [""])
        assert len(server.bodies) == 6


def test_a_server_that_hangs_or_goes_is_not_waited_for():
    with classify(lambda body: time.sleep(3) or (200, {})) as server:
        guard = build_guard(f"{server.url}?timeout=0.3")
        begun = time.monotonic()
        with pytest.raises(RemoteGuardError, match="within"):
            guard.score([SAFE], [""])
        assert time.monotonic() - begun < 2
    with pytest.raises(RemoteGuardError):
        guard.score([SAFE], [""])


def test_the_key_goes_into_a_header_and_nowhere_else(monkeypatch):
    monkeypatch.setenv("MLLM_PROTECTOR_GUARD_KEY", "the-key")
    with classify(lambda body: (500, b"")) as server:
        guard = build_guard(server.url)
        with pytest.raises(RemoteGuardError) as caught:
            guard.score([SAFE], [""])
        assert server.keys == ["Bearer the-key"]
        assert "the-key" not in str(caught.value)


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("threshold=2", "must be above 0"),
        ("threshold=high", "must be above 0"),
        ("text_form=answer", "'text_form' is 'answer'"),
        ("timeout=0", "'timeout' is 0"),
        ("normalise=perhaps", "'normalise' is 'perhaps'"),
    ],
)
def test_a_wrong_query_is_refused(query, told):
    with pytest.raises(InputError) as caught:
        parse_remote(f"http://host:1?{query}")
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("models", "told"),
    [
        ({"data": []}, "has no model at all; it has none"),
        ({"data": [{"id": "a"}]}, "has no model guard; it has a"),
        ({"data": [5]}, "is 5, not an object"),
        ({}, "has no 'data'"),
    ],
)
def test_a_list_of_models_that_does_not_help_is_refused(models, told):
    with classify(lambda body: (500, b""), models or {"x": 1}) as server, pytest.raises(InputError) as caught:
        build_guard(f"{server.url}?model=guard" if models.get("data") else server.url)
    assert told in str(caught.value)
