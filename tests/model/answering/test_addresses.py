"""Addresses of endpoints: what is asked, what may be shown, and what is none."""

from __future__ import annotations

import pytest

from llava.errors import InputError
from llava.model.answering.addresses import parse_address, split_model


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1/models"),
        ("http://127.0.0.1:8000/v1/", "http://127.0.0.1:8000/v1/models"),
        (" HTTP://Host/v1\n", "http://host/v1/models"),
        ("http://host/v1/chat/completions", "http://host/v1/models"),
        ("https://host/openai?api-version=2024-06-01", "https://host/openai/models?api-version=2024-06-01"),
        ("http://[::1]:8000/v1", "http://[::1]:8000/v1/models"),
        ("http://me:secret@host:80/v1", "http://host:80/v1/models"),
    ],
)
def test_the_query_stays_at_the_end_and_user_information_goes(text, asked):
    assert parse_address(text).join("models") == asked


@pytest.mark.parametrize(
    "text",
    [
        *("", "127.0.0.1:8000", "file:///etc/passwd", "http://", "http://[::1", "http://a:b:c/v1"),
        *("http://127.0.0.1:notaport/v1", "http://host:99999/v1", "http://host:0/v1", "http://a..b/v1"),
        *("http://host/v1#part", "http://" + "a" * 64 + ".com/v1", "http://ho st/v1", "http://\x00/v1"),
        *("http://xn--a", "http://xn--a0/v1"),
    ],
)
def test_what_is_no_address_is_said_in_one_line(text):
    with pytest.raises(InputError, match=r"is no address; give one such as http://127\.0\.0\.1:8000/v1"):
        parse_address(text)


@pytest.mark.parametrize(
    "text",
    [
        *("http://me:secret@host:port/v1", "me:secret@host/v1", "http://me:se/cret@host/v1", "http://me:secret@[::1"),
        *("http://me:se cret@host/v1", "http://me:secret@a@host:x/v1", "ftp://me:secret@host", "http:me:secret@h"),
    ],
)
def test_a_bad_address_keeps_its_password_to_itself(text):
    with pytest.raises(InputError, match="is no address") as caught:
        parse_address(text)
    assert "cret" not in str(caught.value)


def test_user_information_and_keys_are_known_but_never_shown():
    address = parse_address("http://me%40work:p%3Aw@host/v1?api-version=2&api_key=k1&sig=k2")
    assert address.credentials == ("me@work", "p:w")
    for shown in (str(address), repr(address)):
        assert not any(secret in shown for secret in ("me@", "me%40", "p:w", "p%3Aw", "k1", "k2"))
    assert "api-version=2" in str(address)
    assert address.join("models").endswith("?api-version=2&api_key=k1&sig=k2")
    assert parse_address(str(address)).host == "host"


def test_this_machine_is_known_by_all_its_names():
    names = ["127.0.0.1", "127.8.0.1", "[::1]", "localhost", "LOCALHOST"]
    assert all(parse_address(f"http://{name}:1/v1").is_loopback for name in names)
    assert not any(parse_address(f"http://{name}/v1").is_loopback for name in ("10.0.0.1", "localhost.com", "[::2]"))


@pytest.mark.parametrize(
    ("argument", "model", "address"),
    [
        ("tiny", "tiny", None),
        ("tiny@http://h/v1", "tiny", "http://h/v1"),
        ("a@b@https://h/v1", "a@b", "https://h/v1"),
        ("tiny@http://me:secret@h/v1", "tiny", "http://me:secret@h/v1"),
        ("claude@20250101", "claude@20250101", None),
        ("@http://h/v1", "", "http://h/v1"),
        ("", "", None),
    ],
)
def test_a_models_name_may_hold_an_at_sign(argument, model, address):
    assert split_model(argument) == (model, address)


@pytest.mark.parametrize("argument", ["tiny@127.0.0.1:8000/v1", "tiny@localhost", "tiny@host/v1"])
def test_an_address_without_scheme_is_not_taken_for_a_name(argument):
    with pytest.raises(InputError, match="is no address"):
        split_model(argument)
