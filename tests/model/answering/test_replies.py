"""What a server answers: text in every form, refusals, cuts, and errors that HTTP calls fine."""

from __future__ import annotations

import json

import pytest

from llava.errors import InputError
from llava.model.answering.replies import (
    CUT_SHORT,
    THOUGHTS_ALONE,
    TOOL_CALLS,
    Answer,
    Failure,
    read_answer,
    read_failure,
)
from tests.model.chat_server import complete


def read(body: object) -> Answer | Failure:
    return read_answer(json.dumps(body), "http://h/v1")


THOUGHT = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}
PARTS = [THOUGHT, {"type": "text", "text": "Sure, mix flour"}, {"type": "text", "text": " and water."}]


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        (complete(" Hello. "), Answer("Hello.")),
        (complete(PARTS), Answer("Sure, mix flour and water.")),
        (complete(["Sure", " thing"]), Answer("Sure thing")),
        (complete([{"type": "output_text", "text": "a"}, {"type": "reasoning", "text": "b"}]), Answer("a")),
        (complete("Hello", "length"), Answer("Hello", cut=True)),
        (complete("Hello", None), Answer("Hello")),
        (complete("half\ud83d"), Answer("half\ufffd")),
        (complete(None), Answer("")),
        (complete(""), Answer("")),
        (complete([{"type": "text", "text": ""}]), Answer("")),
        (complete(None, refusal="I'm sorry."), Answer("", "I'm sorry.")),
        (complete([{"type": "refusal", "refusal": "No."}]), Answer("", "No.")),
        (complete("Hello", refusal="No."), Answer("Hello")),
        (complete(None, "length", reasoning_content="Hm"), Answer("", unanswered=CUT_SHORT, cut=True)),
        (complete("", "length"), Answer("", unanswered=CUT_SHORT, cut=True)),
        (complete(None, reasoning="Hm"), Answer("", unanswered=THOUGHTS_ALONE)),
        (complete([THOUGHT]), Answer("", unanswered=THOUGHTS_ALONE)),
        (complete(None, "tool_calls", tool_calls=[{"id": "1"}]), Answer("", unanswered=TOOL_CALLS)),
    ],
)
def test_answers(body, answer):
    assert read(body) == answer


def test_parts_that_nobody_reads_are_named():
    picture = {"type": "image_url", "image_url": {"url": "data:"}}
    assert read(complete([picture, {"type": "text", "text": "a"}])).unread == ("image_url",)
    odd = [{"type": f"\x1b[2J{number}" * 50} for number in range(50)]
    told = read(complete(odd)).unanswered
    assert told.isprintable()
    assert len(told) < 300
    assert read(complete([picture])).unanswered == "without text, only of the type image_url"


OVERLOAD = {"message": "Internal overload, try later", "code": 500}


@pytest.mark.parametrize(
    ("body", "words", "busy", "refused"),
    [
        ({"error": OVERLOAD}, "status 500: Internal overload, try later", True, False),
        ({"error": {"message": "busy", "code": "rate_limit"}}, "busy", True, False),
        ({"error": "busy"}, "busy", True, False),
        ({"error": {"message": "no", "code": "429"}}, "status 429: no", True, False),
        ({"error": {"message": "no", "code": 404}}, "status 404: no", False, False),
        ({"error": {"message": "no", "code": "content_filter"}}, "no", False, True),
        ({"error": {"message": "no", "code": 400}}, "status 400: no", False, True),
        ({"object": "error", "message": "busy", "code": 50001}, "busy", True, False),
        ({"detail": "not ready"}, "not ready", True, False),
        ({"error": OVERLOAD, **{"choices": []}}, "status 500: Internal overload, try later", True, False),
        ({"choices": [{"error": OVERLOAD, "message": {"content": ""}}]}, "status 500: Internal", True, False),
        ({"choices": []}, "gave no choice", False, True),
        (complete(None, "content_filter"), "its filter held the answer back", False, True),
        (complete("half of it", "error"), "the answer ended with 'error'", True, False),
    ],
)
def test_failures_in_replies_that_http_calls_fine(body, words, busy, refused):
    failure = read(body)
    assert isinstance(failure, Failure)
    assert words in str(failure)
    assert (failure.busy, failure.refused) == (busy, refused)


@pytest.mark.parametrize(
    "text",
    [
        *("", "<html>log in</html>", "data: {}\n\ndata: [DONE]\n", "[]", "null", "{}", '{"choices": 1}', "[" * 100_000),
        *('{"choices": [1]}', '{"choices": [{}]}', '{"choices": [{"message": null}]}', '{"a": ' + "9" * 5000 + "}"),
        *('{"choices": [{"message": {"content": 1}}]}', '{"choices": [{"message": {"content": [1]}}]}'),
        *('{"choices": [{"message": {"content": [{"type": "text"}]}}]}', '{"choices": {"0": 1}}'),
    ],
)
def test_what_is_no_reply_is_said_in_one_line(text):
    with pytest.raises(InputError, match=r"endpoint http://h/v1 does not speak the OpenAI protocol.*check the address"):
        read_answer(text, "http://h/v1")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"error": {"message": "bad", "param": "temperature"}}', "status 400: bad (parameter temperature)"),
        ('{"error": {"message": "bad max_tokens", "param": "max_tokens"}}', "status 400: bad max_tokens"),
        ('{"error": "bad"}', "status 400: bad"),
        ('{"detail": "bad"}', "status 400: bad"),
        ('{"detail": [{"loc": 1}]}', "status 400: {'detail': [{'loc': 1}]}"),
        ("<html>\n bad\n", "status 400: <html> bad"),
        ("[" * 100_000, f"status 400: {'[' * 200}"),
        ("", "status 400: "),
    ],
)
def test_an_errors_words_are_found_in_any_body(text, words):
    assert str(read_failure(400, text)) == words
