"""Images within limits; addresses only where allowed, and never of this machine or its network."""

from __future__ import annotations

import asyncio
import base64
import io
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image

from llava import Protector
from llava.serve.chat.images import ImageReader, is_public
from llava.serve.chat.messages import parse_chat
from llava.serve.errors import ApiError
from llava.serve.settings import ServerSettings
from tests.serve.chat.live import WordGuard, before_upstream, serve_chat


def encode_png(size=(4, 3)):
    stream = io.BytesIO()
    Image.new("RGB", size, "red").save(stream, "PNG")
    return stream.getvalue()


PNG = encode_png()


def data_uri(data=PNG):
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def with_images(*urls):
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return {"model": "echo", "messages": [{"role": "user", "content": [*parts, {"type": "text", "text": "Hi."}]}]}


def open_images(urls, may_connect=is_public, **settings):
    """Open images as a request does; returns the request."""
    chat = parse_chat(with_images(*urls))
    asyncio.run(ImageReader(ServerSettings(**settings), may_connect).open_all(chat))
    return chat


def test_a_data_uri_is_decoded():
    (image,) = open_images([data_uri()]).images
    assert (image.image.size, image.image.mode, image.url) == ((4, 3), "RGB", data_uri())


@pytest.mark.parametrize(
    ("urls", "settings", "words"),
    [
        ([data_uri()] * 3, {"max_images": 2}, "3 images"),
        ([data_uri(b"x" * 2000)], {"max_image_bytes": 1000}, "larger than"),
        ([data_uri(b"no image")], {}, "not a readable image"),
        ([data_uri(PNG[:-30])], {}, "damaged or truncated"),
        (["data:image/png;base64,%%%"], {}, "not valid base64"),
        (["data:text/html;base64,AAAA"], {}, "no data URI of an image"),
        (["data:image/png,AAAA"], {}, "no data URI of an image"),
        (["http://example.com/a.png"], {}, "does not fetch"),
        (["file:///etc/passwd"], {}, "does not fetch"),
        (["file:///etc/passwd"], {"image_urls": True}, "no plain http"),
        (["ftp://example.com/a.png"], {"image_urls": True}, "no plain http"),
        (["http://user@example.com/a.png"], {"image_urls": True}, "no plain http"),
        (["nonsense"], {"image_urls": True}, "no plain http"),
        (["http://[::1/a.png"], {"image_urls": True}, "cannot be fetched"),
        (["http://127.0.0.1:99999/a.png"], {"image_urls": True}, "cannot be fetched"),
        (["http://no-such-name.invalid/a.png"], {"image_urls": True}, "cannot be fetched"),
    ],
)
def test_what_is_refused(urls, settings, words):
    with pytest.raises(ApiError, match=words) as caught:
        open_images(urls, **settings)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "localhost", "[::1]", "0.0.0.0", "2130706433", "0x7f.1", "127.1", "[::ffff:127.0.0.1]"),
        *("10.0.0.1", "192.168.1.1", "172.16.0.1", "169.254.169.254", "100.64.0.1", "[fe80::1]", "[fd00::1]"),
        *("224.0.0.1", "255.255.255.255", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[::127.0.0.1]", "[ff02::1]"),
    ],
)
def test_no_address_of_a_private_network(host):
    with pytest.raises(ApiError, match=r"not public|cannot be fetched"):
        open_images([f"http://{host}:1/a.png"], image_urls=True)


@pytest.mark.parametrize("address", ["1.1.1.1", "2606:4700::1111"])
def test_public_addresses(address):
    assert is_public(address)
    assert not is_public("nonsense")


@pytest.fixture(scope="module")
def shop():
    """A server of images on 127.0.0.1; stands for one on the internet where the rule lets 127.0.0.1 through."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_GET(self):
            asked.append((self.path, self.headers["host"]))
            if self.path.startswith("/to/"):
                self.send_response(302)
                self.send_header("Location", self.path.removeprefix("/to/"))
                self.end_headers()
                return
            self.send_response(200 if self.path != "/gone.png" else 404)
            self.end_headers()
            self.wfile.write(PNG if self.path != "/long.png" else b"x" * 5000)

    asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://localhost:{server.server_port}", asked
    server.shutdown()


def only_shop(address):
    return address in ("127.0.0.1", "::1")


def test_an_image_is_fetched_from_the_address_that_was_checked(shop):
    url, asked = shop
    checked = []

    def rule(address):
        checked.append(address)
        return only_shop(address)

    chat = open_images([f"{url}/a.png?size=1"], rule, image_urls=True)
    assert chat.images[0].image.size == (4, 3)
    assert set(checked) <= {"127.0.0.1", "::1"}
    # The upstream gets the image and has nothing to fetch; the shop was asked by its name.
    assert chat.body["messages"][0]["content"][0]["image_url"]["url"] == data_uri()
    assert asked[-1] == ("/a.png?size=1", url.removeprefix("http://"))


def test_redirects_are_checked_like_the_first_address(shop):
    url, _ = shop
    chat = open_images([f"{url}/to/{url}/a.png"], only_shop, image_urls=True)
    assert chat.images[0].image.size == (4, 3)
    for target in ("http://127.0.0.2:1/a.png", "http://10.0.0.1/a.png", "http://[::ffff:10.0.0.1]/"):
        with pytest.raises(ApiError, match="not public"):
            open_images([f"{url}/to/{target}"], only_shop, image_urls=True)
    for target in ("file:///etc/passwd", "gopher://x"):
        with pytest.raises(ApiError, match="no plain http"):
            open_images([f"{url}/to/{target}"], only_shop, image_urls=True)
    with pytest.raises(ApiError, match="redirects"):
        open_images([f"{url}/to/" + f"{url}/to/" * 4 + "x"], only_shop, image_urls=True)


def test_what_a_shop_does_wrong(shop):
    url, _ = shop
    with pytest.raises(ApiError, match="cannot be fetched"):
        open_images([f"{url}/gone.png"], only_shop, image_urls=True)
    with pytest.raises(ApiError, match="larger than"):
        open_images([f"{url}/long.png"], only_shop, image_urls=True, max_image_bytes=4000)


def test_through_the_server(upstream, shop):
    url, asked = shop
    before = len(asked)
    with serve_chat(Protector(WordGuard()), before_upstream(upstream.url), image_urls=True) as live:
        answer = live.http.post("/v1/chat/completions", json=with_images(f"{url}/a.png"))
        assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")
        assert len(asked) == before
        answer = live.http.post("/v1/chat/completions", json=with_images(data_uri()))
        (choice,) = answer.json()["choices"]
        assert choice["mllm_protector"]["not_inspected"] == ["image"]
        assert answer.headers["x-guard-not-inspected"] == "image"
    assert upstream.log()[-1]["body"]["messages"][0]["content"][0]["image_url"]["url"] == data_uri()
    with serve_chat(
        Protector(WordGuard()), before_upstream(upstream.url), image_urls=True, may_connect=only_shop
    ) as live:
        assert live.http.post("/v1/chat/completions", json=with_images(f"{url}/a.png")).status_code == 200
        answer = live.http.post("/v1/chat/completions", json=with_images(f"{url}/to/http://10.0.0.1/"))
        assert answer.status_code == 400
