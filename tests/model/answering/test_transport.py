"""HTTP to a server: proxies, certificates, keys, and a limit that holds for the whole reply."""

from __future__ import annotations

import base64
import importlib.util
import itertools
import shutil
import ssl
import subprocess
import time

import pytest

from llava.errors import InputError
from llava.model.answering.addresses import parse_address
from llava.model.answering.client import ChatClient, EndpointError
from llava.model.answering.replies import Answer
from llava.model.answering.transport import (
    LateReplyError,
    NoReplyError,
    Transport,
    build_ssl_context,
    choose_proxy,
    read_key,
    read_retry_after,
)
from tests.model.chat_server import ChatServer, connect, echo

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    for name in (*PROXIES, *CERTIFICATES):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def drip(pause: float, count: int):
    """Send blank lines as a busy server does to keep the connection, then an answer."""
    for _ in range(count):
        yield b"\n"
        time.sleep(pause)
    yield b'{"choices": [{"message": {"content": "late"}}]}'


def test_the_limit_holds_for_the_whole_answer():
    with ChatServer(lambda request: drip(0.1, 600)) as server:
        client = ChatClient(server.url, "tiny", timeout=0.4, first_wait=0.01)
        start = time.monotonic()
        with pytest.raises(EndpointError, match=r"in 2 tries \(none within 0\.4 s; see --request-timeout\)"):
            client.complete("hello", max_tokens=5)
        assert time.monotonic() - start < 30  # the whole would take a minute
        assert len(server.requests) == 2


def test_a_server_that_drips_within_the_limit_is_heard():
    with ChatServer(lambda request: drip(0.05, 4)) as server:
        assert connect(server).complete("hello", max_tokens=5) == Answer("late")


def test_a_reply_without_end_is_not_kept_in_memory(monkeypatch):
    monkeypatch.setattr("llava.model.answering.transport.MOST_BYTES", 1 << 20)
    with ChatServer(lambda request: iter(itertools.repeat(b" " * (1 << 16)))) as server:
        address = parse_address(server.url)
        with pytest.raises(NoReplyError, match="more than 1 MiB"):
            Transport(address, "NO_KEY").send("POST", address.join("chat/completions"), 60, {})


def test_a_reply_that_breaks_off_is_none():
    broken = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n"
    with ChatServer(echo, failures=[(200, {"Content-Encoding": "gzip"}, broken)]) as server:
        assert connect(server).complete("hello", max_tokens=5) == Answer("you said hello")
        assert len(server.requests) == 2


def test_a_late_reply_is_cut_off():
    with ChatServer(lambda request: drip(0.2, 300)) as server:
        address = parse_address(server.url)
        start = time.monotonic()
        with pytest.raises(LateReplyError, match=r"none within 0\.3 s"):
            Transport(address, "NO_KEY").send("POST", address.join("chat/completions"), 0.3, {})
        assert time.monotonic() - start < 30  # the whole would take a minute


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "socks://127.0.0.1:1", "http://127.0.0.1:9", "nonsense:x"])
def test_this_machine_is_reached_without_a_proxy(monkeypatch, proxy):
    for name in PROXIES[:3]:
        monkeypatch.setenv(name, proxy)
    with ChatServer(echo) as server:
        assert connect(server).complete("hello", max_tokens=5) == Answer("you said hello")


def test_a_proxy_is_used_for_other_machines_and_those_of_no_proxy_are_left_out(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://me:secret@proxy:3128")
    monkeypatch.setenv("NO_PROXY", "near.example")
    assert choose_proxy(parse_address("http://far.example/v1")).url.host == "proxy"
    assert choose_proxy(parse_address("https://far.example/v1")) is None
    assert choose_proxy(parse_address("http://near.example/v1")) is None
    monkeypatch.setenv("HTTP_PROXY", "proxy:3128")
    assert choose_proxy(parse_address("http://far.example/v1")).url.port == 3128


def test_a_request_goes_through_the_proxy(monkeypatch):
    with ChatServer(echo) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.server_port}")
        assert ChatClient("http://far.example/v1", "tiny").complete("hello", max_tokens=5) == Answer("you said hello")
        assert proxy.paths == ["http://far.example/v1/chat/completions"]


@pytest.mark.parametrize("proxy", ["socks://127.0.0.1:7890", "ftp://me:secret@host", "http://[::1", "socks4://h:1"])
def test_a_proxy_that_is_none_is_one_line(monkeypatch, proxy):
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(InputError, match=r"the proxy in ALL_PROXY is no address.*mend or unset it") as caught:
        ChatClient("http://far.example/v1", "tiny")
    assert "secret" not in str(caught.value)


@pytest.mark.skipif(importlib.util.find_spec("socksio") is not None, reason="socksio is installed")
def test_a_proxy_that_needs_a_package_names_it(monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:7890")
    with pytest.raises(InputError, match=r"pip install 'httpx\[socks\]', or unset ALL_PROXY"):
        ChatClient("http://far.example/v1", "tiny")


@pytest.mark.parametrize("key", ["sk-secretvalue123\n", " sk-secretvalue123 ", "\tsk-secretvalue123\r\n"])
def test_white_space_around_a_key_is_taken_off(monkeypatch, key):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with ChatServer(echo) as server:
        connect(server).check()
        assert server.keys == ["Bearer sk-secretvalue123"]


@pytest.mark.parametrize("key", ["sk-secret\nvalue", "sk-secret value", "sk-secretü", "Bearer sk-secret"])
def test_a_key_that_no_header_holds_is_said_and_not_shown(monkeypatch, key):
    monkeypatch.setenv("MY_KEY", key)
    with pytest.raises(InputError, match="the key in MY_KEY holds a blank") as caught:
        ChatClient("http://127.0.0.1:1/v1", "tiny", api_key_variable="MY_KEY")
    assert "secret" not in str(caught.value)


def test_a_blank_key_is_none(monkeypatch):
    monkeypatch.setenv("MY_KEY", " \n")
    assert read_key("MY_KEY") is None


@pytest.mark.parametrize("status", [400, 404, 500])
def test_a_server_that_repeats_the_key_does_not_get_it_printed(monkeypatch, status):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secretvalue123")
    body = {"error": {"message": "bad key sk-secretvalue123 of me:passw0rd"}}
    with ChatServer(echo, failures=[(status, {}, body)] * 6) as server:
        client = ChatClient(server.url.replace("://", "://me:passw0rd@"), "tiny", first_wait=0.001)
        with pytest.raises((InputError, EndpointError)) as caught:
            client.complete("hello", max_tokens=5)
    assert "bad key" in str(caught.value)
    assert "secretvalue" not in str(caught.value)
    assert "passw0rd" not in str(caught.value)


def test_user_information_becomes_a_header():
    with ChatServer(echo) as server:
        client = ChatClient(server.url.replace("://", "://me:p%3Aw@"), "tiny")
        client.check()
        assert server.keys == ["Basic " + base64.b64encode(b"me:p:w").decode()]
        assert client.base_url == server.url


def test_the_query_goes_with_every_request():
    with ChatServer(echo) as server:
        client = ChatClient(f"{server.url}?api-version=2024-06-01", "tiny")
        client.check()
        client.complete("hello", max_tokens=5)
    doors = ("models", "chat/completions")
    assert server.paths == [f"/v1/{door}?api-version=2024-06-01" for door in doors]


@pytest.fixture(scope="module")
def tls_server(tmp_path_factory):
    """A server with a certificate that nobody has signed, and the file of that certificate."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate")
    folder = tmp_path_factory.mktemp("tls")
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    words += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", folder / "key.pem", "-out", folder / "cert.pem"]
    subprocess.run([str(word) for word in words], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    server = ChatServer(echo)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with server:
        yield server.url.replace("http:", "https:"), folder / "cert.pem"


def test_a_certificate_that_is_not_trusted_names_the_remedy(tls_server):
    url, _ = tls_server
    for work in (lambda client: client.check(), lambda client: client.complete("hello", max_tokens=5)):
        with pytest.raises(InputError, match=r"certificate is not trusted \(self.signed.*in SSL_CERT_FILE"):
            work(ChatClient(url, "tiny"))


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_the_certificates_of_ones_own_authority_are_named_in_the_environment(monkeypatch, tls_server, variable):
    url, certificate = tls_server
    monkeypatch.setenv(variable, str(certificate))
    assert ChatClient(url, "tiny").complete("hello", max_tokens=5) == Answer("you said hello")


def test_certificates_that_are_none_are_one_line(monkeypatch, tmp_path):
    (tmp_path / "x.pem").write_text("no certificate")
    for place in (tmp_path / "x.pem", tmp_path / "none.pem"):
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(place))
        with pytest.raises(InputError, match=r"REQUESTS_CA_BUNDLE names .*pem, which is no file of certificates"):
            build_ssl_context()


def test_a_server_without_tls_is_told():
    with (
        ChatServer(echo) as server,
        pytest.raises(InputError, match="a server without TLS has an address with http://"),
    ):
        ChatClient(server.url.replace("http:", "https:"), "tiny").check()


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0),
        ({"retry-after": "3"}, 3),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after": "60"}, 60),
        ({"retry-after-ms": "1500", "retry-after": "60"}, 1.5),
        ({"retry-after": "-3"}, 0),
        ({"retry-after": "inf"}, 0),
        ({"retry-after": "nan"}, 0),
        ({"retry-after": "1e9"}, 0),
        ({"retry-after": "9" * 400}, 0),
        ({"retry-after": "soon"}, 0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
    ],
)
def test_what_a_server_asks_to_wait(headers, seconds):
    assert read_retry_after(headers) == seconds


def test_a_wait_may_be_a_date():
    date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 100))
    assert 98 < read_retry_after({"retry-after": date}) <= 100
