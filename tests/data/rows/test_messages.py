from __future__ import annotations

import pytest

from llava.data.rows.messages import is_transcript, read_last_answer, read_last_question, read_messages
from llava.errors import InputError

TRANSCRIPT = "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: How?\n\nAssistant: no"
MESSAGES = [
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": "Hi"},
    {"from": "gpt", "value": "Yes?"},
    {"from": "human", "value": "How?"},
    {"role": "assistant", "content": [{"type": "text", "text": "n"}, {"type": "text", "text": "o"}]},
]


@pytest.mark.parametrize("value", ["no", TRANSCRIPT, TRANSCRIPT.strip(), "Assistant: no", MESSAGES, MESSAGES[-1:]])
def test_the_last_answer(value):
    assert read_last_answer(value, "chosen", "line 1") == "no"


@pytest.mark.parametrize("value", ["How?", TRANSCRIPT, "\n\nHuman: How?\n\nAssistant:", "Human: How?", MESSAGES])
def test_the_last_question(value):
    assert read_last_question(value, "prompt", "line 1") == "How?"


def test_null_is_empty_and_a_bare_text_stays_as_it_is():
    assert (read_last_answer(None, "chosen", "x"), read_last_question(None, "prompt", "x")) == ("", "")
    bare = "Humans: a history.\n\nHuman: is a word in it"
    assert not is_transcript(bare)
    assert read_last_answer(bare, "chosen", "line 1") == bare


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("\n\nHuman: How?", "chosen is a transcript that ends with a Human turn"),
        (MESSAGES[:-1], "chosen does not end with a message of the assistant"),
        ([], "does not end with a message of the assistant"),
        (3, "chosen is int, not a text"),
        (["a"], "is a list, but not of messages"),
        ([{"role": ["user"], "content": "x"}], "has the role a list; known are human"),
        ([{"role": "tool", "content": "x"}], "has the role 'tool'"),
        ([{"role": "assistant", "content": None}], "holds something else than text"),
        ([{"role": "assistant", "content": [{"type": "image"}]}], "holds something else than text"),
    ],
)
def test_what_has_no_last_answer(value, message):
    with pytest.raises(InputError, match=f"line 1: .*{message}"):
        read_last_answer(value, "chosen", "line 1")


def test_what_has_no_question():
    with pytest.raises(InputError, match="prompt has no turn of a human"):
        read_last_question("Assistant: no", "prompt", "line 1")
    with pytest.raises(InputError, match="prompt has no turn of a human"):
        read_last_question(MESSAGES[:1], "prompt", "line 1")


def test_messages_with_roles():
    assert read_messages(MESSAGES, "chosen", "line 1")[2:] == [
        ("assistant", "Yes?"),
        ("user", "How?"),
        ("assistant", "no"),
    ]
